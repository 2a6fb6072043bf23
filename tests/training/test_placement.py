"""How many workers train on what, from wanted and declared resources."""

import pytest
from training_fixtures import tiny_ensemble, tiny_settings

from pipeline.formats.errors import UserError
from training.job import Resources
from training.ray.placement import place_workers

BNN, RE = tiny_settings(batch_rows=4 * 512), tiny_ensemble(members=5)


@pytest.mark.parametrize(
    ("settings", "wanted", "there", "expected"),
    [
        (BNN, Resources(), {"CPU": 1}, (1, 0, "gloo")),
        (BNN, Resources(0), {"CPU": 3}, (3, 0, "gloo")),
        (BNN, Resources(0), {"CPU": 64}, (4, 0, "gloo")),  # one a block of rows
        (BNN, Resources(0, threads=2), {"CPU": 5}, (2, 0, "gloo")),
        (RE, Resources(0), {"CPU": 64}, (5, 0, "gloo")),  # one a member
        (RE, Resources(0, gpu=True), {"CPU": 64, "GPU": 4}, (4, 1, "nccl")),
        (RE, Resources(0, gpu=True, workers_per_gpu=2), {"GPU": 2}, (4, 0.5, "gloo")),
        (BNN, Resources(2, gpu=True, workers_per_gpu=2), {"GPU": 1}, (2, 0.5, "gloo")),
    ],
)
def test_workers_follow_what_is_there_and_has_something_to_do(settings, wanted, there, expected):
    placement = place_workers(settings, wanted, there)
    assert (placement.num_workers, placement.gpus, placement.backend) == expected


@pytest.mark.parametrize(
    ("settings", "wanted", "message"),
    [
        (
            BNN,
            Resources(5),
            "5 workers share a batch of 2048 rows in blocks of 512, so 1 would idle",
        ),
        (RE, Resources(7), "7 workers share 5 members, so 2 would idle; set at most 5"),
        (RE, Resources(3, gpu=True), "3 workers want 1/1 GPU each, there are 2"),
        (RE, Resources(0, gpu=True), "1 workers want 1/1 GPU each, there are 0"),
    ],
)
def test_workers_that_would_idle_or_wait_for_ever_are_refused(settings, wanted, message):
    there = {"CPU": 8, "GPU": 0 if wanted.workers == 0 else 2}
    with pytest.raises(UserError, match=message.replace("/", r"\/")):
        place_workers(settings, wanted, there)


def test_the_log_says_who_does_what():
    there = {"CPU": 8, "GPU": 2}
    bnn = place_workers(BNN, Resources(2, threads=3), there).describe(BNN)
    assert bnn == "2 workers with 3 CPU and a slice of every batch each, through gloo"
    shared = place_workers(RE, Resources(0, gpu=True, workers_per_gpu=2), there).describe(RE)
    assert shared == "4 workers with 0.5 GPU and some members each, through gloo"
    assert place_workers(RE, Resources(), there).describe(RE) == "1 worker with 1 CPU"
