// Pictures: dropped ones, and those that the service draws.
import { html, useEffect, useState } from "../html.mjs";
import { Button, bytes, plain } from "./basics.mjs";
import { Drop } from "./drop.mjs";

const ACCEPTED = "image/jpeg,image/png,image/webp,image/bmp,image/tiff,image/gif";

/** A list of picture files, to which one can drop more. */
export function PicturesField({ label, files, onChange }) {
  const size = files.reduce((sum, one) => sum + one.size, 0);
  return html`
    <${Drop} label=${label} accept=${ACCEPTED} multiple onFiles=${(more) => onChange([...files, ...more])} />
    ${files.length > 0 && html`
      <p class="row">
        <span>${files.length === 1 ? "1 picture" : `${files.length} pictures`}, ${bytes(size)}</span>
        <${Button} quiet onClick=${() => onChange([])}>Remove them<//>
      </p>
    `}
  `;
}

/** The picture of a file or blob; its name where the browser cannot show it. */
export function Picture({ of, alt = of.name, ...more }) {
  const [url, show] = useState(null);
  useEffect(() => {
    const made = URL.createObjectURL(of);
    show(made);
    return () => URL.revokeObjectURL(made);
  }, [of]);
  return url && html`<img src=${url} alt=${plain(alt)} ...${more} />`;
}

/** A picture of the service's, a data URI. */
export function DrawnPicture({ uri, alt }) {
  const [blob] = useState(() => toBlob(uri));
  return html`<${Picture} of=${blob} alt=${alt} />`;
}

/** The bytes of a data URI. The page's policy lets no request fetch one. */
export function toBlob(uri) {
  const [head, content] = uri.split(",");
  return new Blob([Uint8Array.from(atob(content), (one) => one.charCodeAt(0))], { type: head.slice(5).split(";")[0] });
}
