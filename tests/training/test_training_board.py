import sys

import pytest
from training_fixtures import job_of, tiny_settings, write_tiny_dataset

from pipeline.formats.errors import UserError
from training.data.training_data import read_training_data
from training.history import read_history
from training.loop import train_network
from training.tensorboard import FOLDER, open_board
from training.train import train_model


def test_without_tensorboard_it_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"), open_board(tmp_path, 0):
        pass
    with pytest.raises(UserError, match="pip install tensorboard"):
        train_model(
            job_of(
                tmp_path / "absent",
                tiny_settings(),
                name="a",
                seed=1,
                folder=tmp_path / "a",
                fingerprint="a",
                workers=1,
                threads=1,
                gpu=False,
                address="local",
                tensorboard=True,
            )
        )
    assert not (tmp_path / "a").exists()


@pytest.mark.filterwarnings("default")  # TensorBoard's own
def test_the_board_shows_the_history_also_of_a_continued_run(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = read_training_data(write_tiny_dataset(tmp_path / "dataset"), None)
    for epochs in (2, 3):
        settings = tiny_settings(epochs=epochs)
        train_network(data, settings, seed=1, fingerprint="a", folder=tmp_path, tensorboard=True)
    board = EventAccumulator(str(tmp_path / FOLDER)).Reload()
    history = read_history(tmp_path)
    for name in ("validation_nll", "kl", "gradient_norm", "log_variance_q50", "rows_per_second"):
        scalars = board.Scalars(name)
        assert [scalar.step for scalar in scalars] == [1, 2, 3]
        expected = [record[name] for record in history]
        assert [scalar.value for scalar in scalars] == pytest.approx(expected, rel=1e-6)
