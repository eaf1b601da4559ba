// Thumbnails by the hash of their photo; with an API key by fetch, since an image cannot send one.

import { fetched } from "./api.js";
import { currentKey } from "./key.js";

/** Show a photo's thumbnail in a frame, or the photo's number if there is none, or not yet. */
export function showThumbnail(frame, { hash, photo_number: number }) {
  const image = document.createElement("img");
  image.alt = "";
  image.decoding = "async";
  const instead = () => {
    const words = document.createElement("span");
    words.className = "no-photo";
    words.textContent = `Photo ${number + 1}`;
    image.replaceWith(words);
  };
  frame.append(image);
  if (!hash) return instead();
  image.addEventListener("error", instead, { once: true });
  const path = `/v1/thumbnails/${hash}.jpg`;
  if (currentKey()) return showFetched(image, path, instead);
  image.loading = "lazy";
  image.src = path;
}

async function showFetched(image, path, instead) {
  try {
    const response = await fetched(path);
    if (!response.ok) return instead();
    image.src = URL.createObjectURL(await response.blob());
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch {
    instead();
  }
}
