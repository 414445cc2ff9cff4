"""Builds a component of a codec: `python3 -m ktables CODEC.py -o CODEC.wasm`."""

import argparse
import importlib
import keyword
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import ktables

#: The classes of codecs, and the interfaces that they implement.
INTERFACES = {
    ktables.ValueCodec: "value-codec",
    ktables.KeyCodec: "key-codec",
    ktables.GroupScheme: "group-scheme",
    ktables.Plugin: "plugin",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m ktables", description="Builds a component of a codec.")
    parser.add_argument("codec", type=Path, help="the Python file with the codec, which calls ktables.export")
    parser.add_argument("-o", "--output", type=Path, help="the component to write; by default the name of the file")
    parser.add_argument("--ktables", default="ktables", help="the ktables command (default: %(default)s)")
    args = parser.parse_args()
    source = args.codec.resolve()
    if not source.is_file() or not source.stem.isidentifier() or keyword.iskeyword(source.stem):
        sys.exit(f"{args.codec}: expected a Python file whose name is a valid module name")
    output = (args.output or args.codec.with_suffix(".wasm")).resolve()
    with tempfile.TemporaryDirectory() as folder:
        build(source, output, Path(folder), args.ktables)


def build(source: Path, output: Path, folder: Path, ktables_command: str) -> None:
    sys.path.insert(0, str(source.parent))
    module = importlib.import_module(source.stem)
    if Path(module.__file__ or "").resolve() != source:
        sys.exit(f"{source}: rename the file, because {source.stem} is the name of another module")
    if ktables._exported is None:
        sys.exit(f"{source}: call ktables.export(YOUR_CODEC) at the end of the file")
    interfaces = [name for kind, name in INTERFACES.items() if issubclass(ktables._exported, kind)]
    package = folder / "wit/deps/ktables"
    package.mkdir(parents=True)
    (package / "package.wit").write_text(run([ktables_command, "codec", "wit"]), encoding="utf-8")
    exports = "".join(f"    export ktables:codec/{name}@0.1.0;\n" for name in interfaces)
    world = "package ktables:component;\n\nworld component {\n    import ktables:codec/logging@0.1.0;\n"
    (folder / "wit/world.wit").write_text(world + exports + "}\n")
    # The module that componentize-py looks for the exported classes in.
    entry = "ktables_component"
    (folder / f"{entry}.py").write_text(f"import {source.stem}\nfrom ktables.exports import *\n", encoding="utf-8")
    # componentize-py reads whole folders, so it gets a copy without what is no part of the codec.
    ignored = shutil.ignore_patterns(".*", "__pycache__", "node_modules", "target", "*.wasm")
    shutil.copytree(source.parent, folder / "codec", ignore=ignored)
    shutil.copytree(Path(ktables.__file__).parent, folder / "sdk/ktables", ignore=ignored)
    paths = [folder, folder / "codec", folder / "sdk"]
    command = ["-d", folder / "wit", "-w", "component", "componentize"]
    command += [option for path in paths for option in ("-p", path)] + [entry, "-o", output]
    run([find_componentize_py(), *command])
    print(f"wrote {output}")


def find_componentize_py() -> str:
    """Returns the program, also in a virtual environment that is not activated."""
    schemes = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", f"{os.name}_user"), site.USER_BASE or ""]
    folders = [str(Path(sys.executable).parent), *schemes, os.environ.get("PATH", "")]
    found = shutil.which("componentize-py", path=os.pathsep.join(folders))
    return found or sys.exit("componentize-py is missing: python3 -m pip install componentize-py")


def run(command: list) -> str:
    """Runs a command, and returns what it prints."""
    command = [str(part) for part in command]
    try:
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error}")
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


main()
