// The frame around every view: where one is, whether the server answers, and the token if it asks for one.

import { html, render, signal, useEffect, useState } from "./lib/preact.js";
import { needsToken, refused, useToken } from "./net.js";
import { connected, follow, lost, server, warnings } from "./state.js";
import { Failed, Said } from "./parts.js";
import { Wait, useReturn } from "./waiting.js";

const VIEWS = [
  { id: "now", title: "Now", load: () => import("./views/now.js") },
  { id: "try", title: "Try", load: () => import("./views/try.js") },
  { id: "trust", title: "Trust", load: () => import("./views/trust.js") },
  { id: "stores", title: "Stores", load: () => import("./views/stores.js") },
  { id: "map", title: "Map", load: () => import("./views/map.js") },
  { id: "activity", title: "Activity", load: () => import("./views/activity.js") },
  { id: "connect", title: "Connect", load: () => import("./views/connect.js") },
];

const place = signal([]); // of "#/stores/notes": the view, then what it shows
addEventListener("hashchange", look);
look();

function look() {
  if (!location.hash.startsWith("#/")) return; // a place on the page, such as #main
  try {
    place.value = location.hash.slice(2).split("/").map(decodeURIComponent);
  } catch {
    place.value = []; // somebody has typed it
  }
}

function App() {
  const [id, ...rest] = place.value;
  const view = VIEWS.find((each) => each.id === id) ?? VIEWS[0];
  useEffect(() => {
    document.title = `${view.title} · emberd`;
  }, [view]);
  useEffect(() => {
    if (!connected.value) return;
    for (const each of VIEWS) each.load().catch(() => {}); // so that they are there when the server is not
  }, [connected.value]);
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <header>
      <a class="brand" href="#/now"><img src="icon.svg" alt="" width="20" height="20" />emberd</a>
      <nav aria-label="Views">
        ${VIEWS.map(
          (each) => html`
            <a key=${each.id} href="#/${each.id}" aria-current=${each === view ? "page" : null}>
              ${each.title}
            </a>
          `,
        )}
      </nav>
      <${Connection} />
    </header>
    <main id="main" tabindex="-1">
      <${Lost} />
      <${Warnings} />
      ${needsToken.value ? html`<${AskForToken} />` : html`<${View} key=${view.id} view=${view} rest=${rest} />`}
    </main>
  `;
}

function Connection() {
  if (connected.value === null) return html`<p class="connection" role="status">connecting</p>`;
  if (!connected.value) {
    return html`<p class="connection lost" role="status">${lost.value.message.replace(/\.$/, "")}; trying again</p>`;
  }
  return html`<p class="connection" role="status">emberd ${server.value?.version}</p>`;
}

/** What to do while the server does not answer: said once, for all views. */
function Lost() {
  if (connected.value !== false || needsToken.value) return null;
  return html`
    <div class="notice warn gone" role="status">
      <p><${Said} text=${lost.value.message} /></p>
      <p class="hint"><${Said} text=${lost.value.hint} /> This page tries again by itself; until then it shows what it knew.</p>
    </div>
  `;
}

function Warnings() {
  return warnings.value.map(
    (each) => html`
      <div class="notice warn" key=${each.code + each.message}>
        <p><${Said} text=${each.message} /></p>
        <p class="hint"><${Said} text=${each.hint} /></p>
      </div>
    `,
  );
}

function AskForToken() {
  const [given, setGiven] = useState("");
  const [isTyped, setTyped] = useState(true);
  const submit = (event) => {
    event.preventDefault();
    setTyped(useToken(given));
  };
  return html`
    <form class="card narrow" onSubmit=${submit}>
      <h1>This server asks for a token</h1>
      <p>It is the value of EMBERD_TOKEN, or a line of server.token_file, on the machine that runs emberd.
        This tab keeps it until you close it.</p>
      ${refused.value && html`<p class="notice bad" role="alert">The server does not accept the token that was given.</p>`}
      ${!isTyped && html`<p class="notice bad" role="alert">No token has such characters: look for quotation marks or spaces around it.</p>`}
      <label for="token">Token</label>
      <input id="token" type="password" autocomplete="off" required value=${given}
        onInput=${(event) => setGiven(event.target.value)} />
      <button class="primary" type="submit">Use it</button>
    </form>
  `;
}

const NOT_LOADED = { message: "This view could not be loaded.", hint: "The page is loaded anew once emberd answers again." };
const SLOW = "The server sends the files of the page slowly: it has much to do, or the way to it is slow. If that goes on, load the page anew.";

/** Loads a view's module when it is first looked at. */
function View({ view, rest }) {
  const [found, setFound] = useState({});
  useEffect(() => {
    let here = true;
    view.load().then(
      (module) => here && setFound({ Content: module.default }),
      () => here && setFound({ problem: NOT_LOADED }),
    );
    return () => (here = false);
  }, [view]);
  useReturn(() => found.problem && location.reload()); // browsers may remember that a module could not be loaded
  if (found.problem) return html`<h1>${view.title}</h1><${Failed} problem=${found.problem} again=${() => location.reload()} />`;
  if (!found.Content) return html`<${Wait} what="Loading the view" why=${SLOW} />`;
  return html`<${found.Content} rest=${rest} />`;
}

document.getElementById("app").replaceChildren();
render(html`<${App} />`, document.getElementById("app"));
follow();
