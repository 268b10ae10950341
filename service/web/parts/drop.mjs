// A place to drop a file, which is also a button that chooses one.
import { html, useId, useState } from "../html.mjs";

export function Drop({ label, accept, onFile }) {
  const id = useId();
  const [isOver, hover] = useState(false);
  const take = (file) => file && onFile(file);
  function drop(event) {
    event.preventDefault();
    hover(false);
    take(event.dataTransfer.files[0]);
  }
  return html`
    <div
      class=${isOver ? "drop over" : "drop"}
      onDragOver=${(event) => (event.preventDefault(), hover(true))}
      onDragLeave=${() => hover(false)}
      onDrop=${drop}
    >
      <label for=${id}>${label}</label>
      <input id=${id} type="file" accept=${accept} onChange=${(event) => take(event.target.files[0])} />
    </div>
  `;
}
