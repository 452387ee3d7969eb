"""What mkdocs is told about this repository: pages made of the code, and links out of docs/.

A link to a file outside of docs/ works in the repository. In the site that file becomes a page
below project/, text as it is in a block, and so do the files that such a page links to.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.main import get_command

from medtrans.cli.app import app

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)(#[^)]*)?\)")
NAMED = (  # files outside of docs/ that the navigation names
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "bundles/brain_mri/docs/README.md",
    "data_manifests/README.md",
)
PUBLIC = (
    "medtrans.inference.translator.Translator",
    "medtrans.inference.translator.Written",
    "medtrans.inference.settings.Settings",
    "medtrans.package.store.load_package",
    "medtrans.package.store.ModelPackage",
    "medtrans.volumes.read_volume",
    "medtrans.volumes.write_volume",
    "medtrans.data.manifest.Manifest",
    "medtrans.training.plan.TrainingPlan",
    "medtrans.training.run.train",
    "medtrans.evaluate.metrics",
    "medtrans.diffusion",
    "medtrans.errors",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of the code and of files outside of docs/."""
    made = {
        "reference/commands.md": commands(),
        "reference/python.md": python(),
        "reference/recipes.md": recipes(),
    }
    wanted = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    wanted += NAMED
    seen: set[str] = set()
    while wanted:
        path = wanted.pop()
        if path in seen:
            continue
        seen.add(path)
        text = (ROOT / path).read_text(encoding="utf-8")
        if not path.endswith(".md"):
            made[place(path)] = f"# {path}\n\n```\n{text}\n```\n"
            continue
        wanted += targets(text, path)
        if not path.startswith("docs/"):
            made[place(path)] = text
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=relinked(text, origin(uri))))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Lead the links of a page of docs/ to the pages that are in the site."""
    uri = page.file.src_uri
    return markdown if page.file.generated_by else relinked(markdown, f"docs/{uri}")


def targets(text: str, path: str) -> Iterator[str]:
    """Yield the files of the repository that a page links to."""
    for _, link, _ in LINK.findall(text):
        if target := resolved(link, path):
            yield target


def resolved(link: str, path: str) -> str | None:
    """Return a link's file, a folder's README.md; None where that is not for a page."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    if (ROOT / target).is_dir():
        target += "/README.md"
    readable = target.endswith((".md", ".toml", ".txt"))
    return target if readable and (ROOT / target).is_file() else None


def place(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"project/{path}" if path.endswith(".md") else f"project/{path}.md"


def origin(uri: str) -> str:
    """Which file of the repository a page of the site was made of."""
    return uri.removeprefix("project/") if uri.startswith("project/") else f"docs/{uri}"


def relinked(text: str, path: str) -> str:
    """Write a page's links anew, for its place in the site."""
    here = posixpath.dirname(place(path))

    def link(found: re.Match[str]) -> str:
        text, target = found[1], resolved(found[2], path)
        if target is None:
            return text  # of what is in the repository alone
        return f"[{text}]({posixpath.relpath(place(target), here)}{found[3] or ''})"

    return LINK.sub(link, text)


def commands() -> str:
    """Describe every command by what it says of itself."""
    root = get_command(app)
    lines = ["# Commands", "", "Every command takes `--help` and `--json`.", ""]
    for words, command in walk(root, ("medtrans",)):
        lines += [f"## {' '.join(words)}", "", command.help or "", ""]
        lines += ["| argument or option | |", "|---|---|"]
        lines += [row(parameter) for parameter in command.params if parameter.name != "help"]
        lines.append("")
    return "\n".join(lines)


def walk(
    command: click.Command, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield the commands that do something, with the words that call them."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield words, command
        return
    for name, child in inner.items():
        yield from walk(child, (*words, name))


def row(parameter: click.Parameter) -> str:
    """Return a parameter's line of the table."""
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        names = f"`{(parameter.name or '').upper()}`"
    said = (getattr(parameter, "help", None) or "").replace("|", "\\|").replace("\n", " ")
    default = parameter.default
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    return f"| {names} | {said}{f' Default: {default}.' if plain else ''} |"


def python() -> str:
    """List the public interface, for mkdocstrings to fill in."""
    blocks = "\n\n".join(f"::: {name}" for name in PUBLIC)
    return f"# Python\n\n[translate.md](../translate.md) has examples.\n\n{blocks}\n"


def recipes() -> str:
    """Show the recipes as they are."""
    shown = ["# Recipes", "", "[train.md](../train.md) says how to write one.", ""]
    for path in sorted((ROOT / "pipelines").glob("*.toml"), key=lambda p: (p.stem != "base", p)):
        shown += [f"## {path.stem}", "", "```toml", path.read_text(encoding="utf-8"), "```", ""]
    return "\n".join(shown)
