// TODO
import { html } from "../lib/preact.js";
export default function View() { return html`<h1>stores</h1>`; }
