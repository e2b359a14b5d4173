"""The pictures that explain routing and autoscaling, from the simulator; `make plots`. Needs matplotlib.

python scripts/plots.py docs/images              all of them, about two minutes
python scripts/plots.py docs/images routing-load that one
"""

import sys
from collections.abc import Callable
from pathlib import Path

import plots_autoscaling
import plots_routing

PICTURES: dict[str, Callable[[Path], None]] = {
    "routing-load": plots_routing.draw_load,
    "routing-moment": plots_routing.draw_moment,
    "autoscaling-step": plots_autoscaling.draw_step,
    "autoscaling-climb": plots_autoscaling.draw_climb,
    "autoscaling-day": plots_autoscaling.draw_day,
    "autoscaling-spare": plots_autoscaling.draw_spare,
}


def main() -> None:
    folder, wanted = Path(sys.argv[1]), sys.argv[2:] or list(PICTURES)
    for name in wanted:
        path = folder / f"{name}.png"
        PICTURES[name](path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
