// Photos as they are sent: what is much larger than the router needs is made smaller first.

const LARGE_BYTES = 1024 * 1024;
const LONG_SIDE = 1600; // enough for a crop of a part
const QUALITY = 0.9;

/** Return a photo with its size in pixels: as it is, or smaller; without a size if it cannot be shown here. */
export async function readPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return { blob: file, name: file.name, width: 0, height: 0 };
  }
  try {
    const { width, height } = bitmap;
    const scale = LONG_SIDE / Math.max(width, height);
    if (file.size <= LARGE_BYTES || scale >= 1) return { blob: file, name: file.name, width, height };
    const canvas = new OffscreenCanvas(Math.round(width * scale), Math.round(height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
    return { blob, name: file.name, width: canvas.width, height: canvas.height };
  } finally {
    bitmap.close();
  }
}

/** Return the first file that may be a photo of what was dropped or pasted; undefined if none is. */
export function photoIn(transfer) {
  const files = [...(transfer?.files ?? [])];
  return files.find((file) => file.type.startsWith("image/") || /\.(heic|heif|avif)$/i.test(file.name));
}
