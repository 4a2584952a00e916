"""Every router over libraries that lack the adapter of the direction that is translated.

    left_out.py --library RUN/adapters --out FILE.json -- model=tongues data=tongues

Two published studies contradict each other on Arrow against SpectR where the right adapter is
missing. The record has the mean chrF++ over the directions of every router, of the mean of the
adapters that are left (`uniform`) and of the base without any (`base`). The translations stay out.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import ROUTERS, chrf_of
from oracle import analyse_library, library_parser, routed
from settings import settings_of

from polylect.run.untrained_model import build_untrained
from polylect.strategies.lag import LAG


def main() -> None:
    parser = library_parser(__doc__.splitlines()[0], limit=25)
    routers = [name for name in ROUTERS if name != "oracle"]
    parser.add_argument("--routers", nargs="*", choices=routers, default=routers)
    arguments = parser.parse_args()

    def measure(module: LAG, data: Any) -> dict[str, Any]:
        base = build_untrained(settings_of("evaluate", [*arguments.overrides, "strategy=frozen"]))
        values: dict[str, list[float]] = {"base": [], **{name: [] for name in arguments.routers}}
        for direction in data.directions_of("test"):
            values["base"].append(chrf_of(base, data, direction, arguments.limit))
            own = module.serving["library"].adapter[direction]
            with tempfile.TemporaryDirectory() as folder:
                link_others(arguments.library.resolve(), own, Path(folder))
                rest = build_untrained(
                    settings_of("evaluate", [*arguments.overrides, *routed(folder)])
                )
                for router in arguments.routers:
                    rest.route_by(ROUTERS[router])
                    values[router].append(chrf_of(rest, data, direction, arguments.limit))
            print(direction, {name: round(found[-1], 1) for name, found in values.items()})
        return {
            "routers": {
                name: {"chrf++": round(sum(found) / len(found), 2)}
                for name, found in values.items()
            }
        }

    analyse_library(arguments, measure)


def link_others(library: Path, own: str, folder: Path) -> None:
    """Make `folder` a library of all adapters but `own`."""
    for adapter in library.iterdir():
        if adapter.is_dir() and adapter.name != own:
            (folder / adapter.name).symlink_to(adapter, target_is_directory=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
