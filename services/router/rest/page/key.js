// The API key, kept for the tab, and the dialog that asks for it.

const NAME = "shashin-api-key";
const dialog = document.getElementById("key");
const form = document.getElementById("key-form");
const field = document.getElementById("key-value");
let asking = null;

export function currentKey() {
  return sessionStorage.getItem(NAME) ?? "";
}

/** Ask for another key than `refused`; all that wait share one dialog. Resolves to whether there is one. */
export function askForKey(why, refused) {
  if (currentKey() && currentKey() !== refused) return Promise.resolve(true);
  asking ??= ask(why).finally(() => {
    asking = null;
  });
  return asking;
}

function ask(why) {
  document.getElementById("key-why").textContent = `This router asks for one: ${why}.`;
  field.value = "";
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "use"), { once: true });
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(NAME, field.value.trim());
  dialog.close("use");
});
document.getElementById("key-cancel").addEventListener("click", () => dialog.close("cancel"));
dialog.addEventListener("cancel", () => {
  dialog.returnValue = "cancel";
});
