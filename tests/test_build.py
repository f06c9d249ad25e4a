"""The extension that makes the site, and the commands around it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from livebook import assets, build, cache, checks, colab, environment, figures, repository
from livebook.widgets import STATE, VIEW, slim
from site_pages import PAGES

ROOT = Path(__file__).resolve().parents[1]

# ---------------------------------------------------------------- the cache of executed notebooks


@pytest.fixture
def tree(tmp_path) -> Path:
    """A repository in small."""
    for name in ("bn/a.py", "bn/w/x.js", "book/c.quiz.json", "requirements.txt", "book/c.ipynb"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.mark.parametrize("name", ["bn/a.py", "bn/w/x.js", "book/c.quiz.json", "requirements.txt"])
def test_the_key_follows_what_an_execution_depends_on(name, tree):
    before = cache.key(tree)
    (tree / name).write_text("changed")
    assert cache.key(tree) != before
    (tree / name).write_text(name)
    assert cache.key(tree) == before


def test_the_key_ignores_what_an_execution_does_not_see(tree):
    before = cache.key(tree)
    (tree / "book/c.ipynb").write_text("jupyter-cache looks at the notebook itself")
    (tree / "bn/__pycache__").mkdir()
    (tree / "bn/__pycache__/a.pyc").write_text("compiled")
    assert cache.key(tree) == before


def test_moving_text_from_one_file_to_another_changes_the_key(tree):
    before = cache.key(tree)
    (tree / "bn/b.py").write_text("")
    assert cache.key(tree) != before


def test_old_cache_folders_go_and_recent_ones_stay(tree):
    folders = tree / "_build/.jupyter_cache"
    for name, age in (("old", cache.KEEP_SECONDS + 60), ("recent", 60)):
        (folders / name).mkdir(parents=True)
        os.utime(folders / name, (time.time() - age,) * 2)
    config = SimpleNamespace(nb_execution_mode="cache", nb_execution_cache_path="")
    cache.name_folder(SimpleNamespace(srcdir=tree, outdir=tree / "_build/html"), config)
    assert config.nb_execution_cache_path == str(folders / cache.key(tree))
    assert sorted(p.name for p in folders.iterdir()) == sorted(["recent", cache.key(tree)])


# ------------------------------------------------------------------------------ the state of widgets


def model(name: str, module: str = "anywidget", **state) -> dict:
    return {"model_name": name, "model_module": module, "state": state}


def test_the_page_holds_a_repeated_text_once():
    esm = "export default {}"
    small = slim({
        "a": model("AnyModel", _esm=esm, _css="", x=1, layout="IPY_MODEL_l", _poster="<svg/>"),
        "b": model("AnyModel", _esm=esm, _css="p{}", x=2, _view_name="AnyView"),
        "l": model("LayoutModel", "@jupyter-widgets/base"),
        "link": model("LinkModel", "@jupyter-widgets/controls", source=[], target=[]),
    })  # fmt: skip
    assert small["texts"] == [esm, "p{}"]
    assert {key: value["state"] for key, value in small["state"].items()} == {
        "a": {"_esm": 0, "_css": "", "x": 1},
        "b": {"_esm": 0, "_css": 1, "x": 2},
        "link": {"source": [], "target": []},
    }


def page(body: str = "", models: dict | None = None, shown: tuple[str, ...] = ()) -> str:
    state = f'<script type="{STATE}">{json.dumps(slim(models))}</script>' if models else ""
    views = "".join(f'<script type="{VIEW}">{json.dumps({"model_id": m})}</script>' for m in shown)
    return f"<!doctype html><html><head>{state}</head><body>{body}{views}</body></html>"


ALIVE = {"a": model("AnyModel", _esm="x"),
         "box": model("VBoxModel", "@jupyter-widgets/controls", children=["IPY_MODEL_a"])}  # fmt: skip


@pytest.mark.parametrize("html", [
    page('<a href="https://example.org">a link to follow</a>'),
    page('<img src="../_images/a.svg" alt="A curve that falls.">'),
    page('<img src="data:image/png;base64,AA" alt="">'),
    page('<link rel="canonical" href="https://example.org/">'),
    page(models=ALIVE, shown=("a", "box")),
])  # fmt: skip
def test_a_sound_page_passes_the_checks(html):
    assert list(checks.findings(html)) == []


@pytest.mark.parametrize(("html", "finding"), [
    (page('<script src="https://cdn.example/x.js"></script>'), "another host: https://cdn"),
    (page('<script async src="//cdn.example/x.js"></script>'), "another host: //cdn"),
    (page('<link rel="stylesheet" href="https://cdn.example/x.css">'), "another host"),
    (page('<link href="http://cdn.example/" rel="dns-prefetch">'), "another host"),
    (page('<img alt="A dot." src="https://cdn.example/x.png">'), "another host"),
    (page('<iframe src="https://cdn.example/"></iframe>'), "another host"),
    (page('<video poster="https://cdn.example/x.png"></video>'), "another host"),
    (page('<img src="a.svg">'), "without a text alternative: a.svg"),
    (page('<img alt="../_images/a.svg" src="../_images/a.svg">'), "without a text alternative"),
    (page(shown=("a",)), "state was not saved"),
    (page(models=ALIVE, shown=("a", "gone")), "state was not saved"),
    (page(models={"box": model("HBoxModel", "c", children=["IPY_MODEL_s"])}, shown=("box",)), "dead"),
])  # fmt: skip
def test_a_page_with_a_fault_is_found_out(html, finding):
    assert any(finding in found for found in checks.findings(html)), list(checks.findings(html))


# ------------------------------------------------------------------------------ drawings, icons, maths


def test_every_colour_of_the_palette_has_a_dark_value():
    plots = pytest.importorskip("bn.plots")
    missing = {c.lower() for c in plots.COLORS.values()} - set(figures.DARK)
    assert not missing


def test_drawings_and_widgets_have_the_same_dark_palette():
    """The dark block of common.css and the dark twins of drawings state the same colours."""
    css = (ROOT / "bn/widgets/common.css").read_text(encoding="utf-8")
    values = re.findall(r"--bn-(with|without|third|accent|warn): (#[0-9a-f]{6});", css)
    pairs = {name: [v for n, v in values if n == name][:2] for name, _ in values}
    for name, (light, dark) in pairs.items():
        assert figures.DARK[light] == dark, name


def test_a_dark_twin_differs_in_colours_only():
    svg = '<svg width="9"><path d="M 0 0" style="fill: #1f2328"/><text>#1f2</text></svg>'
    dark = figures.darken(svg)
    assert re.sub(r'#\w{6}| fill="[^"]*"', "", dark) == re.sub(r"#\w{6}", "", svg)


def test_the_subset_of_icons_holds_those_in_use(tmp_path):
    from fontTools.ttLib import TTFont

    html = tmp_path / "page.html"
    html.write_text('<i class="fa-solid fa-bars"></i><i class="fab fa-github"></i>')
    (tmp_path / "icons").mkdir()
    assets.write_icons(tmp_path, [html])
    css = (tmp_path / assets.ICONS_FILE).read_text()
    assert css.count("@font-face") == 2
    solid = TTFont(tmp_path / "icons/fa-solid-900.woff").getBestCmap()
    assert set(solid) == {0xF0C9}
    assert (tmp_path / "icons/fa-brands-400.woff").stat().st_size < 5000


def test_mathjax_is_one_file_and_its_fonts_lie_beside_it(tmp_path):
    assets.write_mathjax(tmp_path)
    whole = (tmp_path / assets.MATHJAX_FILE).read_text(encoding="utf-8")
    assert "MathJax.loader.preLoad" in whole
    assert list((tmp_path / "mathjax/output/chtml/fonts/woff-v2").glob("*.woff"))
    assert (tmp_path / "mathjax/input/tex/extensions/color.js").exists()


# ------------------------------------------------------------------------------ the repository


def buttons(monkeypatch, **environ) -> dict:
    for name in ("BN_REPOSITORY", "GITHUB_REPOSITORY", "GITHUB_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    config = SimpleNamespace(html_theme_options={"repository_url": "https://github.com/a/b"})
    repository.set_buttons(None, config)
    return config.html_theme_options


def test_an_unknown_repository_shows_no_button(monkeypatch):
    options = buttons(monkeypatch)
    assert options["use_repository_button"] is False
    assert options["launch_buttons"] == {}
    assert options["repository_url"] == ""


def test_a_known_repository_shows_true_buttons(monkeypatch):
    options = buttons(monkeypatch, GITHUB_REPOSITORY="ada/bn")
    assert options["use_repository_button"] is True
    assert options["repository_url"] == "https://github.com/ada/bn"
    assert "colab_url" in options["launch_buttons"]
    elsewhere = buttons(monkeypatch, BN_REPOSITORY="https://git.example/ada/bn")
    assert elsewhere["use_repository_button"] is True
    assert elsewhere["launch_buttons"] == {}, "Colab opens notebooks from GitHub only"


def test_a_notebook_for_colab_sets_itself_up_once(tmp_path):
    folder = tmp_path / "book" / "why"
    folder.mkdir(parents=True)
    shutil.copy(next((ROOT / "book").glob("*/*.ipynb")), folder / "chapter.ipynb")
    before = nbformat.read(folder / "chapter.ipynb", as_version=4)
    for _ in range(2):
        assert colab.write(tmp_path, "https://github.com/ada/bn") == [folder / "chapter.ipynb"]
    after = nbformat.read(folder / "chapter.ipynb", as_version=4)
    nbformat.validate(after)
    setup, *rest = after.cells
    assert [cell.source for cell in rest] == [cell.source for cell in before.cells]
    assert "git+https://github.com/ada/bn" in setup.source
    assert "/content/course/book/why" in setup.source


def test_the_repository_stands_in_no_file():
    """A fork has nothing to edit: the address comes from where the workflow runs."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert "repository" not in config
    assert not config["launch_buttons"].get("colab_url")


# ------------------------------------------------------------------------------ building


def small_book(root: Path, chapter: str, cells: list) -> None:
    """Write a book of one page and one notebook with this book's own settings."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["sphinx"]["local_extensions"] = {"livebook": str(ROOT / "book" / "_ext")}
    config["sphinx"]["config"]["html_static_path"] = [str(ROOT / "book" / "_static")]
    config["logo"] = config["html"]["favicon"] = "logo.svg"
    (root / "logo.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (root / "_config.yml").write_text(yaml.safe_dump(config))
    toc = {"format": "jb-book", "root": "book/index", "chapters": [{"file": "book/chapter"}]}
    (root / "_toc.yml").write_text(yaml.safe_dump(toc))
    (root / "book").mkdir()
    (root / "book/references.bib").write_text("")
    (root / "book/index.md").write_text(f"# A book\n\n{chapter}\n")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Chapter"), *cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, root / "book/chapter.ipynb")


def run_build(root: Path) -> tuple[int, str]:
    environ = os.environ | {"PYTHONPATH": str(ROOT / "book" / "_ext"), "BUILD_ROOT": str(root)}
    command = "import os, sys, pathlib; from livebook import build; "
    command += "sys.exit(build.build(pathlib.Path(os.environ['BUILD_ROOT'])))"
    done = subprocess.run([sys.executable, "-c", command], env=environ, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    return done.returncode, done.stdout


DRAW = """\
import bn.plots
import matplotlib.pyplot as plt
bn.plots.use_style()
plt.plot([1, 2])
plt.show()"""


def test_a_book_with_faults_is_not_built_and_not_the_second_time_either(tmp_path):
    code = nbformat.v4.new_code_cell
    small_book(
        tmp_path,
        '[nowhere](missing.md)\n\n<img src="https://cdn.example/x.png" alt="A dot.">',
        [code(DRAW), code("import ipywidgets\nipywidgets.IntSlider()")],
    )
    for _ in range(2):
        status, output = run_build(tmp_path)
        assert status == 1, output
        assert "asks another host: https://cdn.example/x.png" in output
        assert "image without a text alternative" in output
        assert "widget that is dead without a kernel" in output
        assert "missing.md" in output


def test_a_cell_that_fails_stops_the_build_and_its_traceback_is_shown(tmp_path):
    small_book(tmp_path, "", [nbformat.v4.new_code_cell("1 / 0")])
    status, output = run_build(tmp_path)
    assert status == 1
    assert "ZeroDivisionError" in output
    assert "The book was not built" in output


def test_a_sound_book_is_built_with_a_twin_for_each_drawing(tmp_path):
    caption = nbformat.v4.new_markdown_cell(
        "*Figure: a line that rises.*\n\n**Takeaway.** It rises."
    )
    draw = nbformat.v4.new_code_cell(DRAW)
    fold = nbformat.v4.new_code_cell("1", metadata={"tags": ["hide-cell", "solution"]})
    small_book(tmp_path, "", [draw, caption, fold])
    status, output = run_build(tmp_path)
    assert status == 0, output
    assert "2 pages, 0 interactive figures and quizzes, 1 drawings" in output
    html = (tmp_path / "_build/html/book/chapter.html").read_text(encoding="utf-8")
    assert html.count('alt="a line that rises."') == 2
    assert re.search(r'<p class="bn-caption">', html)
    assert re.search(r'<p class="bn-takeaway">', html)
    assert "<summary>Solution</summary>" in html
    images = re.findall(r'src="\.\./(_images/[^"]+)"', html)
    light, dark = ((tmp_path / "_build/html" / name).read_text() for name in images)
    assert "#0072b2" in light
    assert "#0072b2" not in dark


def test_the_summary_counts_the_site(site):
    text = build.summary(site)
    assert text.startswith(f"{len(PAGES)} pages")


# ------------------------------------------------------------------------------ the environment


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A checkout without .venv; pip and venv write down what they were asked for."""
    calls: list[str] = []
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "ENVIRONMENT", tmp_path / ".venv")
    monkeypatch.setattr(environment, "STAMP", tmp_path / ".venv" / ".installed")
    monkeypatch.setattr(environment, "HALF_MADE", tmp_path / ".venv" / ".half-made")
    wanted = (tmp_path / "requirements.txt", tmp_path / "pyproject.toml")
    for path in wanted:
        path.write_text("")
    monkeypatch.setattr(environment, "WANTED", wanted)
    monkeypatch.setattr(environment.venv, "create", lambda *a, **k: calls.append("venv"))
    monkeypatch.setattr(environment.subprocess, "run", lambda *a, **k: calls.append("pip"))
    return tmp_path, calls


def test_an_environment_is_made_once(fresh):
    root, calls = fresh
    assert environment.main() == 0
    assert calls == ["venv", "pip", "pip"]
    assert environment.main() == 0
    assert calls == ["venv", "pip", "pip"], "a second run reuses the first"
    (root / "requirements.txt").write_text("numpy==0")
    assert environment.main() == 0
    assert calls == ["venv", "pip", "pip", "pip", "pip"], "changed pins are installed"


def test_what_an_interrupted_run_left_is_made_anew(fresh, monkeypatch):
    root, calls = fresh

    def interrupt(*arguments, **options):
        (root / ".venv/half-a-package").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environment.subprocess, "run", interrupt)
        assert environment.main() == 130
    assert (root / ".venv/half-a-package").exists()
    assert environment.main() == 0
    assert not (root / ".venv/half-a-package").exists()
    assert calls[-3:] == ["venv", "pip", "pip"]


def test_a_failing_pip_is_said_and_tried_again(fresh, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise subprocess.CalledProcessError(1, "pip")

    with monkeypatch.context() as patch:
        patch.setattr(environment.subprocess, "run", fail)
        assert environment.main() == 1
    assert "Run the same command again" in capsys.readouterr().err
    assert environment.main() == 0


def test_an_environment_that_someone_else_made_is_kept(fresh):
    root, calls = fresh
    (root / ".venv").mkdir()
    (root / ".venv/mine").touch()
    assert environment.main() == 0
    assert (root / ".venv/mine").exists()
    assert calls == ["pip", "pip"]


def test_two_runs_at_once_install_once(fresh, monkeypatch):
    _, calls = fresh
    monkeypatch.setattr(environment.subprocess, "run",
                        lambda *a, **k: (time.sleep(0.2), calls.append("pip")))  # fmt: skip
    runs = [threading.Thread(target=environment.main) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert calls.count("pip") == 2


def test_another_python_is_refused_with_the_remedy(fresh, monkeypatch, capsys):
    _, calls = fresh
    monkeypatch.setattr(environment, "PYTHON", (3, 99))
    assert environment.main() == 1
    assert "make PYTHON=" in capsys.readouterr().err
    assert calls == []


def test_make_alone_lists_the_commands():
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = re.findall(r"(?m)^  make (\w+) +\S", shown)
    assert names == ["book", "test", "serve", "lab", "run", "bench", "lint", "clean"]


def test_the_pins_are_exact_and_name_no_host():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", pin) for pin in pins), "one exact pin a line"
    assert len({pin.split("==")[0].lower().replace("_", "-") for pin in pins}) == len(pins)
