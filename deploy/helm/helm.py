"""`helm template` and `helm lint` for the checks of this repository, by Helm's own library.

Helm itself is published for download only; the Python package helm-python-sdk brings its library (requirements.txt). Where
`helm` is installed the checks use that, so this understands just what they call:

    helm.py template RELEASE CHART [--namespace NAMESPACE] [--values FILE]
    helm.py lint CHART [--values FILE]
"""

import argparse
import sys
from pathlib import Path

from helm_python import HelmError
from helm_python.chart import Chart, lint, values_from_yaml

WARNING = 2


def main() -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    template = commands.add_parser("template")
    template.add_argument("release")
    for command in (template, commands.add_parser("lint")):
        command.add_argument("chart")
        command.add_argument("--namespace", default="default")
        command.add_argument("--values", type=Path)
    arguments = parser.parse_args()
    try:
        values = values_from_yaml(arguments.values.read_text()) if arguments.values else {}
        if arguments.command == "lint":
            messages = lint(arguments.chart, values=values, namespace=arguments.namespace)["messages"]
            for message in messages:
                print(f"{message['path']}: {message['error']}")
            return int(any(message["severity"] >= WARNING for message in messages))
        with Chart.load(arguments.chart) as chart:
            rendered = chart.render(values, name=arguments.release, namespace=arguments.namespace, is_install=True)
        for name, text in sorted(rendered.items()):
            if text.strip() and not name.endswith("NOTES.txt"):
                print(f"---\n# Source: {name}\n{text.strip()}")
        return 0
    except HelmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
