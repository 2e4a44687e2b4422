// Keeps the page as the run is: asks for its state, and for the view where that has changed.
const state = document.getElementById("state");
const view = document.getElementById("view");

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

async function replaceView(version) {
  const html = await (await ask("view")).text();
  const scrolled = [...view.querySelectorAll(".scroll")].map((e) => [e.scrollLeft, e.scrollTop]);
  view.innerHTML = html;
  view.dataset.version = version;
  document.title = `${view.querySelector("h1").textContent}, wattfed`;
  view.querySelectorAll(".scroll").forEach((e, i) => {
    [e.scrollLeft, e.scrollTop] = scrolled[i] ?? [0, 0];
  });
}

async function look() {
  try {
    const now = await (await ask("state.json")).json();
    if (now.version !== view.dataset.version) await replaceView(now.version);
    state.textContent = now.state;
    state.className = now.finished ? "finished" : "running";
  } catch (error) {
    const lost = error instanceof TypeError; // what fetch throws where nobody answers
    state.textContent = lost ? "no answer: does wattfed watch still run?" : error.message;
    state.className = "broken";
  }
  setTimeout(look, 1000);
}
look();
