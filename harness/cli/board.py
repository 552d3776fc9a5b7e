"""`speedrun board`: build the static site, or show it on this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import LOCAL, SITE, everything, json_option, print_json
from harness.launch import REPOSITORY
from harness.track import Track, load_track, track_names
from leaderboard.site.serve import HOST, make_server
from leaderboard.site.track import TrackInfo

if TYPE_CHECKING:
    from leaderboard.site.build import SiteReport

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def board() -> None:
    """Build the static site from the results databases, or serve it on this machine."""


@board.command()
@click.option("--out", type=FOLDER, default=SITE, show_default="site", help="Folder to write; replaced in one step.")
@click.option("--db", "database", type=FOLDER, default=LOCAL, show_default="runs", help="Shown over the committed results.")
@json_option
def build(out: Path, database: Path, as_json: bool) -> None:
    """Render every page from the committed and the local results."""
    report = write_site(database, out)
    if as_json:
        print_json({"out": report.out, "pages": report.pages, "files": report.files, "size_bytes": report.size_bytes})
    else:
        click.echo(f"{report.pages} pages, {report.size_bytes / 1e6:.1f} MB: {(report.out / 'index.html').resolve()}")


@board.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0 takes any free port.")
@click.option("--out", type=FOLDER, default=SITE, show_default="site", help="Folder to serve.")
@json_option
def serve(port: int, out: Path, as_json: bool) -> None:
    """Show the built site on loopback until interrupted."""
    with make_server(out, port) as server:
        address = f"http://{HOST}:{server.server_port}/"
        if as_json:
            print_json({"address": address})
        else:
            click.echo(f"{address} (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def write_site(database: Path, out: Path) -> SiteReport:
    """Build the site of a database over the committed one."""
    from leaderboard.site.build import build_site  # brings the charting library, which no other command needs

    tracks = [track_info(load_track(name)) for name in track_names()]
    return build_site(everything(database), tracks, (REPOSITORY / "RULES.md").read_text(), out)


def build_board(database: Path) -> Path:
    """Rebuild the default site; returns its folder."""
    return write_site(database, SITE).out


def track_info(track: Track) -> TrackInfo:
    """What the site shows of a track."""
    return TrackInfo(
        name=track.name,
        title=track.title,
        version=track.version,
        hardware=track.hardware,
        data=track.data_title,
        metric=track.target.metric,
        target=track.target.value,
        provisional=track.provisional,
        description=track.description,
        reference_usd_per_hour=track.price.usd_per_hour,
    )
