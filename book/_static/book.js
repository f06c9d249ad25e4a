// Two things that style sheets cannot do: print what the screen folds away, and give a formula
// that is wider than its line a box of its own to scroll in.
(() => {
  "use strict";
  const root = document.documentElement;

  function tameFormulas() {
    const formulas = [...document.querySelectorAll(".bd-article mjx-container:not([display])")];
    for (const formula of formulas) formula.classList.remove("bn-wide");
    const wide = formulas.filter(
      (formula) => formula.offsetWidth > formula.closest("p, li, td, th, dd, h1, h2, h3, summary, div").clientWidth,
    );
    for (const formula of wide) formula.classList.add("bn-wide");
  }
  addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    tameFormulas();
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth !== width) requestAnimationFrame(tameFormulas);
      width = innerWidth;
    });
  });

  // Paper: folds open, light colours, pictures that were waiting to be scrolled to.
  let folded = [];
  let theme;

  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll(".bd-article details:not([open])")];
    for (const fold of folded) fold.open = true;
    for (const image of document.querySelectorAll("img[loading=lazy]")) image.loading = "eager";
    theme = root.dataset.theme;
    root.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    for (const fold of folded) fold.open = false;
    if (theme) root.dataset.theme = theme;
  });
})();
