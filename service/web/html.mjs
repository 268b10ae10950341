// Templates and state: what every other module builds with.
import htm from "./vendor/htm.mjs";
import { h } from "./vendor/preact.mjs";

export { Fragment, render } from "./vendor/preact.mjs";
export { useCallback, useEffect, useId, useLayoutEffect, useRef, useState } from "./vendor/hooks.mjs";
export { batch, computed, effect, signal } from "./vendor/signals.mjs";
export const html = htm.bind(h);
