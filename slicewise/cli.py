"""The command line: ``slicewise VERB …``.

Exit code 0 done, 1 the job failed, 2 wrong usage. The library's verbs are in ``cli_stages``, ``cli_report``,
``cli_predict``, ``cli_store``, ``cli_tools``, ``cli_profile`` and ``cli_tune``; the layers above add theirs through
the entry-point group ``slicewise.commands``.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata

import typer

from slicewise import RESEARCH_USE, cli_predict, cli_profile, cli_report, cli_stages, cli_store, cli_tools, cli_tune
from slicewise.errors import SliceWiseError
from slicewise.logs import configure_logging

GROUP = "slicewise.commands"


def build_app() -> typer.Typer:
    """The application with the verbs of every layer that is installed."""
    app = typer.Typer(
        help=f"Brain-tumour MRI: from raw scans to a calibrated, served model. {RESEARCH_USE} "
        "Add --debug to any verb to see tracebacks.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        entry.load()(app)
    cli_stages.register(app)
    cli_predict.register(app)
    cli_report.register(app)
    cli_store.register(app)
    cli_tools.register(app)
    cli_profile.register(app)
    cli_tune.register(app)
    return app


def main() -> None:
    """Run the command line; a deliberate error is one line on stderr."""
    # Waiting threads that spin slow training down fourfold when anything else runs on the machine. OpenMP reads
    # this when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    configure_logging(debug=debug)
    try:
        build_app()()
    except SliceWiseError as error:
        if debug:
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
