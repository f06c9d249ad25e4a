// Paper shows everything: folds open, light colours, pictures that were waiting to be scrolled to.
(() => {
  "use strict";
  const root = document.documentElement;
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
