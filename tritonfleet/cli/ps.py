"""`ps`: the command that is typed most, so it imports the least."""

from tritonfleet.cli import fleet, render
from tritonfleet.cli.terminal import Output, Settings, show, show_data, show_line, width


def ps(settings: Settings) -> None:
    with fleet.locate(settings).client() as client:
        snapshot = client.snapshot()
    if settings.output in (Output.JSON, Output.YAML):
        show_data(snapshot, settings.output)
    elif settings.output is Output.NAME:
        for replica in snapshot.replicas:
            show_line(replica.id)
    else:
        show(render.ps(snapshot, width(), wide=settings.output is Output.WIDE))
