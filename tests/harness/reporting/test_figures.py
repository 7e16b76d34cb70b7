"""What stands in the figures of returns can be read."""

import matplotlib.pyplot as plt
import pandas as pd

from harness.reporting.figures import policy_styles, return_curves
from harness.reporting.returns import Reference


def test_the_name_of_the_published_expert_stays_clear_of_the_title():
    panel = pd.DataFrame(
        [
            dict(tier=tier, policy="spin", gradient_step=step, mean=mean, low=mean - 9, high=mean + 9)
            | dict(asm_seconds=60.0, start_seconds=0.0, train_seconds=step / 10, fraction=step / 5000)
            for tier in ("medium", "medium-expert", "random-medium-expert", "expert")
            for step, mean in ((50, 9.0), (5000, 676.0))
        ]
    )
    figure = return_curves(panel, policy_styles(["spin"]), Reference(5.0, 711.9), "humanoid-stand", "Episode return")
    figure.canvas.draw()
    for axes in figure.axes[:4]:
        (name,) = [each for each in axes.texts if each.get_text() == "published expert"]
        assert not name.get_window_extent().overlaps(axes.title.get_window_extent())
    plt.close(figure)
