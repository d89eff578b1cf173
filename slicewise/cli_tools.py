"""Verbs that look at the machine."""

from __future__ import annotations

import typer

from slicewise.cli_options import Json, emit


def register(app: typer.Typer) -> None:
    """Add the tools' verbs to the command line."""
    app.command("doctor")(doctor)


def doctor(json: Json = False) -> None:
    """Tell what is missing on this machine and how to get it; exit 1 when something needed is.

    Example: slicewise doctor
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from slicewise.doctor import examine

    findings = examine()
    missing = [finding for finding in findings if finding.needed and not finding.ok]
    if json:
        emit({"ok": not missing, "findings": [vars(finding) for finding in findings]}, as_json=True)
    else:
        table = Table("", "what", "found", "cure", show_edge=False)
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else ("[red]missing[/]" if finding.needed else "[yellow]optional[/]")
            table.add_row(mark, finding.name, escape(finding.found), "" if finding.ok else escape(finding.cure))
        Console().print(table)
    if missing:
        raise typer.Exit(1)
