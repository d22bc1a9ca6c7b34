"""Sounds: frames that show where a tone lies, filters as the formula has them, and files that cannot be used."""

import math
import wave

import numpy as np
import pytest
import torch
from task_parts import everything

from torchloom.errors import ConfigError, DataError
from torchloom_tasks.audio import AudioFolder, log_mel, mel_filters, read_wav
from torchloom_tasks.configs import AudioFolderConfig

RATE = 8_000


def tone(frequency, seconds=0.2, rate=RATE):
    return 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(round(seconds * rate)) / rate)


def write(path, sound, rate=RATE, width=2, channels=1):
    """Write an uncompressed file, as the bytes of each width are laid down by the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = (sound.double().numpy() * (2 ** (8 * width - 1) - 1)).round().astype(np.int64)
    whole = np.repeat(whole + 128 * (width == 1), channels)
    content = b"".join(int(value).to_bytes(width, "little", signed=width > 1) for value in whole)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(content)
    return path


def folder(root, per_class=10):
    for name, frequency in (("low", 300), ("high", 2_000)):
        for number in range(per_class):
            write(root / name / f"{number}.wav", tone(frequency + 5 * number, 0.1 + 0.02 * number))
    return root


def audio(path, **fields):
    fields = {"sample_rate": RATE, "context_length": 20, "mels": 20, **fields}
    return AudioFolder(AudioFolderConfig(path=str(path), **fields))


def test_a_folder_of_tones_becomes_spectrograms_that_tell_them_apart(tmp_path):
    dataset = audio(folder(tmp_path))
    assert dataset.spec.classes == ("high", "low")
    sizes = [len(dataset.split(name)) for name in ("train", "val", "test")]
    assert sizes == [16, 2, 2]
    batch = everything(dataset.split("train"))
    assert batch["series"].shape == (16, 20, 20)
    centre = batch["series"].amax(1).argmax(1)
    assert (centre[batch["label"] == 0].min() > centre[batch["label"] == 1].max()).item()


def test_sounds_are_filled_up_or_cut_to_the_frames_of_an_example(tmp_path):
    write(tmp_path / "a" / "short.wav", tone(500, 0.0501))
    write(tmp_path / "b" / "long.wav", tone(500, 1.0))
    batch = everything(audio(tmp_path, val_fraction=0.0, test_fraction=0.0).split("train"))
    assert batch["length"].tolist() == [6, 20]
    assert (batch["series"][0, 6:] == 0).all()
    for row, length in enumerate(batch["length"].tolist()):
        real = batch["series"][row, :length]
        assert real.mean().item() == pytest.approx(0, abs=1e-5)
        assert real.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)


def test_loudness_makes_no_difference(tmp_path):
    write(tmp_path / "a" / "soft.wav", tone(500) / 4)
    write(tmp_path / "b" / "loud.wav", tone(500))
    batch = everything(audio(tmp_path, val_fraction=0.0, test_fraction=0.0, mels=8).split("train"))
    assert torch.allclose(batch["series"][0], batch["series"][1], atol=0.25)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_width_and_number_of_channels_is_read(tmp_path, width, channels):
    sound = tone(440)
    found = read_wav(write(tmp_path / "a.wav", sound, width=width, channels=channels), RATE)
    assert torch.allclose(found, sound, atol=2 / 2 ** min(8 * width - 1, 20))


def test_power_is_that_of_the_discrete_fourier_transform():
    config = AudioFolderConfig(sample_rate=RATE, window=0.032, hop=0.016, mels=12)
    sound = torch.randn(1_000, generator=torch.Generator().manual_seed(0))
    frames = log_mel(sound, config)
    assert frames.shape == (8, 12)
    n = torch.arange(256.0)
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * n / 256)
    angle = 2 * math.pi * torch.arange(129.0)[:, None] * n / 256
    piece = sound[256 : 256 + 256] * window
    power = (piece * angle.cos()).sum(1).square() + (piece * angle.sin()).sum(1).square()
    assert torch.allclose(frames[2], (power @ mel_filters(RATE, 256, 12)).log(), atol=1e-3)


def test_filters_are_the_triangles_of_the_formula():
    filters = mel_filters(16_000, 512, 40)

    def hertz(mel):
        return 700 * (10 ** (mel / 2595) - 1)

    top = 2595 * math.log10(1 + 8_000 / 700)
    for band in (0, 7, 39):
        low, peak, high = (hertz(top * (band + step) / 41) for step in (0, 1, 2))
        for place in range(257):
            frequency = place * 16_000 / 512
            height = min((frequency - low) / (peak - low), (high - frequency) / (high - peak))
            assert filters[place, band].item() == pytest.approx(max(0, height), abs=1e-5)


def test_filters_are_those_of_librosa():
    librosa = pytest.importorskip("librosa", reason="librosa is not installed")
    theirs = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=40, htk=True, norm=None)
    assert np.allclose(mel_filters(16_000, 512, 40).numpy().T, theirs, atol=1e-5)


def test_a_speaker_stands_in_one_split_and_lists_are_followed(tmp_path):
    for name, frequency in (("no", 300), ("yes", 900)):
        for number in range(40):
            write(tmp_path / name / f"s{number % 20}_nohash_{number // 20}.wav", tone(frequency + number, 0.05))
    dataset = audio(tmp_path, val_fraction=0.2, test_fraction=0.2)
    held = [{path.name.split("_")[0] for path in dataset.split(name)._paths} for name in ("train", "val", "test")]
    assert list(map(len, held)) == [12, 4, 4]
    assert len(held[0] | held[1] | held[2]) == 20

    (tmp_path / "validation_list.txt").write_text("no/s1_nohash_0.wav\nyes/s1_nohash_0.wav\n")
    (tmp_path / "testing_list.txt").write_text("yes/s2_nohash_1.wav\n")
    listed = audio(tmp_path)
    assert [len(listed.split(name)) for name in ("val", "test")] == [2, 1]
    assert {path.name.split("_")[0] for path in listed.split("train")._paths} == {f"s{n}" for n in range(20)} - {
        "s1",
        "s2",
    }


def test_read_takes_files(tmp_path):
    dataset = audio(folder(tmp_path))
    batch = everything(dataset.read([str(tmp_path / "low" / "0.wav")]))
    assert batch["series"].shape == (1, 20, 20)
    assert "label" not in batch
    with pytest.raises(DataError, match=r"gone\.wav: there is no such WAV file"):
        dataset.read(["gone.wav"])


# Bad input


def test_files_that_cannot_be_used_are_named(tmp_path):
    path = write(tmp_path / "fast.wav", tone(300), rate=16_000)
    with pytest.raises(DataError) as caught:
        read_wav(path, RATE)
    assert str(caught.value) == (
        f"{path}: has 16000 samples a second, not 8000; set dataset.sample_rate=16000 if all have, or convert it"
    )
    path.write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"fast\.wav: not an uncompressed WAV file \(cut short\); convert it"):
        read_wav(path, RATE)
    with pytest.raises(DataError, match=r"none\.wav: holds no sound; remove it"):
        read_wav(write(tmp_path / "none.wav", tone(300, 0)), RATE)
    cut = write(tmp_path / "cut.wav", tone(300, 0.1))
    whole = cut.read_bytes()
    cut.write_bytes(whole[:900])
    told = f"{cut}: is cut short: 900 bytes, of 1600 that it promises; replace or remove it"
    with pytest.raises(DataError) as caught:
        read_wav(cut, RATE)
    assert str(caught.value) == told
    # A recording that came through a pipe, whose length nobody knew when its beginning was written.
    cut.write_bytes(whole[:40] + b"\xff\xff\xff\x7f" + whole[44:])
    assert len(read_wav(cut, RATE)) == 800


def test_files_of_all_splits_are_looked_at_before_training(tmp_path):
    folder(tmp_path)
    bad = write(tmp_path / "low" / "odd.WAV", tone(300), rate=16_000)
    with pytest.raises(DataError, match=r"odd\.WAV: has 16000 samples a second, not 8000"):
        audio(tmp_path).prepare()
    write(bad, torch.zeros(800))  # silence is a sound
    dataset = audio(tmp_path)
    batches = [everything(dataset.split(name)) for name in ("train", "val", "test")]
    assert sum(len(batch["label"]) for batch in batches) == 21
    assert all(batch["series"].isfinite().all() for batch in batches)


def test_files_that_are_no_wav_are_counted(tmp_path, caplog):
    root = tmp_path / "words"
    folder(root)
    first = next(iter(sorted(one for one in root.iterdir() if one.is_dir())))
    (first / "other.mp3").write_bytes(b"ID3")
    audio(root).split("train")
    told = f"{root}: left out 1 files in its folders whose names do not end in .wav"
    assert [record.getMessage() for record in caplog.records].count(told) == 1


def test_a_folder_without_classes_is_named(tmp_path):
    write(tmp_path / "only" / "a.wav", tone(300))
    with pytest.raises(DataError) as caught:
        audio(tmp_path).prepare()
    assert str(caught.value) == (
        f"{tmp_path}: holds 1 folders with WAV files; put them into one folder a class, two or more"
    )


def test_bands_finer_than_the_window_are_refused():
    with pytest.raises(ConfigError) as caught:
        audio("any", mels=200)
    assert str(caught.value) == (
        "dataset.mels: 200 bands are too fine for a window of 0.025 s\n    lower it, or raise dataset.window"
    )
