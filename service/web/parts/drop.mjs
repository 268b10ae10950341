// A place to drop files, which is also a button that chooses them.
import { html, useId, useState } from "../html.mjs";

/** Calls `onFiles` with a list: of one file, or of several where `multiple`. */
export function Drop({ label, accept, multiple = false, onFiles }) {
  const id = useId();
  const [isOver, hover] = useState(false);
  const take = (files) => files.length && onFiles([...files].slice(0, multiple ? undefined : 1));
  function chooseFiles({ target }) {
    take(target.files);
    if (multiple) target.value = ""; // the page lists them itself, and the same ones can be chosen again
  }
  function drop(event) {
    event.preventDefault();
    hover(false);
    take(event.dataTransfer.files);
  }
  return html`
    <div
      class=${isOver ? "drop over" : "drop"}
      onDragOver=${(event) => (event.preventDefault(), hover(true))}
      onDragLeave=${() => hover(false)}
      onDrop=${drop}
    >
      <label for=${id}>${label}</label>
      <input id=${id} type="file" accept=${accept} multiple=${multiple} onChange=${chooseFiles} />
    </div>
  `;
}
