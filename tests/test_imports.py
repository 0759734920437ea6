"""The import graph, read from the source: imports go down only, peers are never imported, and importing is light."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the top: a part may import its own layer and those below. docs/architecture.md draws the same.
LAYERS = [
    {"__main__"},
    {"cli", "server"},
    {"demo", "compare"},
    {"run", "evaluate", "doctor"},
    {"jobs"},
    {"card"},
    {"recipe"},
    {"cells", "origin", "training", "pipelines", "inspection"},
    {"tasks", "decode", "hf", "checkpoint"},
    {"models"},
    {"nn"},
    {"data"},
    {"text"},
    {"storage"},
    {"files"},
    {"config"},
    {"errors"},
]
DEPTH = {part: depth for depth, layer in enumerate(LAYERS) for part in layer}
# `text` and `data` stand beside `models`: neither pair knows the other.
APART = [(above, below) for above in ("models", "nn") for below in ("data", "text", "storage")]
# The server is one extra's whole package, so it alone may import that extra when it is imported itself.
HOME_OF_SERVE = "server"


@dataclass(frozen=True)
class Import:
    """One import in the package. importer, imported: dotted modules. deferred: it runs inside a function."""

    importer: str
    imported: str
    deferred: bool
    type_only: bool
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted((ROOT / "tripel").rglob("*.py"))}


def part(module: str) -> str:
    """The part of the house a module belongs to: nn of tripel.nn.block."""
    return module.split(".")[1] if "." in module else module


def imports_of(name: str) -> Iterator[Import]:
    def visit(node: ast.AST, deferred: bool, type_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, deferred, type_only, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                imported = whole if whole in MODULES else str(node.module)
                yield Import(name, imported, deferred, type_only, node.lineno)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                yield from visit(child, deferred, True)
            for child in node.orelse:
                yield from visit(child, deferred, type_only)
        else:
            inside = deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for child in ast.iter_child_nodes(node):
                yield from visit(child, inside, type_only)

    yield from visit(ast.parse(MODULES[name].read_text("utf-8"), filename=str(MODULES[name])), False, False)


IMPORTS = [found for name in MODULES for found in imports_of(name)]
OWN = [found for found in IMPORTS if found.imported.split(".")[0] == "tripel"]
FOREIGN = [
    found
    for found in IMPORTS
    if (top := found.imported.split(".")[0]) != "tripel" and top not in sys.stdlib_module_names
]


def test_every_part_of_the_package_has_a_place_in_the_order():
    assert {part(name) for name in MODULES} - {"tripel", "recipes"} <= set(DEPTH)


def test_imports_go_down_only():
    upward = [
        str(found)
        for found in OWN
        if found.importer != "tripel"  # the package's own names are fetched from above, on first use
        and part(found.imported) != "tripel"
        and DEPTH[part(found.imported)] < DEPTH[part(found.importer)]
    ]
    assert not upward, "\n".join(upward)


@pytest.mark.parametrize(("above", "below"), APART)
def test_a_model_knows_neither_text_nor_files(above: str, below: str):
    wrong = [str(found) for found in OWN if part(found.importer) == above and part(found.imported) == below]
    assert not wrong, "\n".join(wrong)


def test_no_two_modules_need_each_other_to_be_imported():
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in OWN:
        if not found.deferred and not found.type_only:
            graph[found.importer].add(found.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def declared(group: str | None = None) -> set[str]:
    """The top-level modules of the dependencies that pyproject.toml declares, of the core or of one extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = project["dependencies"] if group is None else project["optional-dependencies"][group]
    wanted = {requirement.split(">")[0].split("=")[0].strip().lower() for requirement in requirements}
    installed = packages_distributions()
    return {module for module, names in installed.items() if wanted & {name.lower() for name in names}}


# pip names that differ from the module, for extras that are not installed where the tests run.
EXTRAS = {
    "serve": {"fastapi", "uvicorn", "prometheus_client", "starlette"},
    "formats": {"translate", "pyarrow"},
    "hub": {"huggingface_hub"},
    "tensorboard": {"tensorboard"},
}


def test_the_package_imports_nothing_but_what_it_declares():
    allowed = declared().union(*EXTRAS.values())
    wrong = [str(found) for found in FOREIGN if found.imported.split(".")[0] not in allowed]
    assert not wrong, "\n".join(wrong)


def test_an_extra_is_imported_only_where_it_is_used():
    optional = set().union(*EXTRAS.values()) - declared()
    wrong = [
        str(found)
        for found in FOREIGN
        if (found.imported.split(".")[0] in optional or found.imported == "torch.utils.tensorboard")
        and not found.deferred
        and not found.type_only
        and part(found.importer) != HOME_OF_SERVE
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "peer", ["transformers", "ctranslate2", "sentencepiece", "sacremoses", "datasets", "accelerate"]
)
def test_a_peer_is_never_imported(peer: str):
    wrong = [str(found) for found in FOREIGN if found.imported.split(".")[0] == peer]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        "import tripel",
        "import tripel.cli",
        "import sys\nfrom tripel.cli import main\nsys.argv[1:] = ['--help']\ntry: main()\nexcept SystemExit: pass",
        "import tripel.text, tripel.recipes",
    ],
)
def test_importing_and_asking_for_help_load_neither_torch_nor_pictures(code: str):
    check = "\nimport sys; sys.exit(' '.join({'torch', 'matplotlib', 'PIL', 'sacrebleu'} & set(sys.modules)) or None)"
    result = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, "")
