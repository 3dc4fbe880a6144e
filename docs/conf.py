"""How Sphinx makes the documentation site: ``nox -s docs``.

The documents are written for readers of the repository, so their links lead to files. Here links to documents stay as
they are, pages of the reference results are copied beside the site, and other files are shown in the repository.
"""

import importlib.metadata
import os
import re
import shutil
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer

import mnist_ablate

ROOT = Path(__file__).parent.parent

# Now, since autodoc imports what is missing as a type checker would, which pydantic does not survive.
public = [getattr(mnist_ablate, name) for name in mnist_ablate.__all__]

project = "mnist-ablate"
author = copyright = "The mnist-ablate developers"  # noqa: A001  # Sphinx's name
release = version = importlib.metadata.version(project)

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinxarg.ext"]
exclude_patterns = ["*.py", "_build", "article/*.md"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r".*")]  # types of other libraries; links between documents stay checked
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
myst_url_schemes: dict[str, Any] = {"http": None, "https": None, "page": "{{path}}", "source": None}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
autodoc_typehints = "none"  # the signature has them
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
suppress_warnings = ["myst.header"]  # the table of contents comes before the first heading of its own

html_theme = "furo"
html_title = "mnist-ablate"
html_show_sphinx = html_show_sourcelink = html_copy_source = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]


def repository() -> str:
    """Return where the files of the repository can be read: on GitHub where its workflow builds this, else here."""
    server, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{name}/blob/main/" if server and name else f"{ROOT.as_uri()}/"


myst_url_schemes["source"] = repository() + "{{path}}"


PAGES = {"README.md": "index.md", "notebooks/README.md": "notebooks.md"}
"""The pages of documents that are not in docs/."""


def linked(text: str, folder: str) -> str:
    """Return a document of `folder`, relative to the root of the repository, with links that work on the site."""

    def follow(found: re.Match[str]) -> str:
        target, anchor = re.match(r"([^#]*)(.*)", found[2]).groups()  # type: ignore[union-attr]  # matches anything
        path = Path(os.path.normpath(Path(folder) / target)).as_posix() if target else ""
        if path.startswith("reports/"):
            return f"{found[1]}page:{path}{anchor}{found[3]}"
        if path in PAGES:
            return f"{found[1]}{PAGES[path]}{anchor}{found[3]}"
        if path.startswith("docs/") and path.endswith((".md", ".svg")):
            return f"{found[1]}{path.removeprefix('docs/')}{anchor}{found[3]}"
        return f"{found[1]}source:{path}{found[3]}" if path else found[0]

    text = re.sub(r"(\]\()(?!https?:)([^)\s]+)(\))", follow, text)
    return re.sub(r'((?:src|srcset)=")docs/', r"\1", text)


def _read(_app: Any, name: str, source: list[str]) -> None:
    """Turn the front page into the README with the table of contents, and follow the links of all documents."""
    if name == "index":
        source[0] = linked((ROOT / "README.md").read_text(encoding="utf-8"), ".") + source[0]
    else:
        source[0] = linked(source[0], "docs")


def _include(_app: Any, path: Path, _name: str, content: list[str]) -> None:
    """Follow the links of a document that a page includes."""
    content[0] = linked(content[0], f"docs/{path.parent.as_posix()}")


ACCESSIBLE = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Contents">',
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
}
"""What the theme lacks for screen readers and keyboards."""
PICTURE = re.compile(r'<p>(?=<img [^>]*src="_images/C\d+-)')
"""Where a picture of the article begins. On a phone it scrolls within itself, see site.css, and so takes the focus."""
LANGUAGES = {"hallazgos": "es"}
"""Of the pages that are not in English."""


def _name_language(_app: Any, name: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Say in which language a page is, for those who have it read aloud."""
    context["language"] = LANGUAGES.get(name, context["language"])


def _finish(app: Any, problem: Exception | None) -> None:
    """Mend the pages, and put beside them what they show by HTML and the reports that they link to."""
    if problem is None:
        for page in app.outdir.glob("*.html"):
            text = page.read_text(encoding="utf-8")
            for lacking, mended in ACCESSIBLE.items():
                text = text.replace(lacking, mended)
            page.write_text(PICTURE.sub('<p class="wide" tabindex="0">', text), encoding="utf-8")
        for picture in (ROOT / "docs").glob("*.svg"):
            shutil.copy(picture, app.outdir)
        shutil.copytree(ROOT / "reports" / "reference", app.outdir / "reports" / "reference", dirs_exist_ok=True)


def setup(app: Any) -> None:
    """Register with Sphinx."""
    app.add_lexer("csv", TextLexer)
    app.connect("source-read", _read)
    app.connect("include-read", _include)
    app.connect("html-page-context", _name_language)
    app.connect("build-finished", _finish)
