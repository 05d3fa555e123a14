"""From attributes to drawing parameters: every number the layers need, one value per face."""

from __future__ import annotations

import torch
from torch import Tensor

from vlbias.world.actions import actions
from vlbias.world.attributes import NUISANCES, TRAITS
from vlbias.world.canvas import ramp
from vlbias.world.color import EYE_COLORS, GREY_HAIR, HAIR_COLORS, greyness, light_of, skin_albedo
from vlbias.world.faces import Faces

__all__ = ["drawing_parameters"]

_LENGTHS = (0.0, 1.0, 2.0)  # hair: short, medium, long


def _mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    return a + (b - a) * share[:, None]


def _hue(hue: Tensor, colour: Tensor, value: Tensor) -> Tensor:
    """Hue 0..1, colourfulness and value (n,) => gamma-2 light (n, 3)."""
    phase = 2 * torch.pi * (hue[:, None] + torch.tensor([0.0, 1 / 3, 2 / 3], device=hue.device))
    return ((value[:, None] * (1 + colour[:, None] * torch.cos(phase))).clamp(0.02, 0.98)) ** 2


def drawing_parameters(faces: Faces) -> dict[str, Tensor]:
    """Faces => parameters, float32: scalars (n, 1, 1), colours (n, 3, 1, 1) in gamma-2 light."""
    t = {name: faces.geometry[:, k] for k, name in enumerate(TRAITS)}
    s = {name: faces.nuisance[:, k] for k, name in enumerate(NUISANCES)}
    age, male, beard = faces.age, faces.masculinity, faces.beard_amount
    act = actions(faces.expression, faces.dialect, faces.smile_intensity, s["expression_strength"])
    old = ramp(age, 30.0, 90.0) * 1.05
    wrinkle = ramp(age, 33.0, 82.0) * (1 + 0.2 * t["wrinkles"])
    grey = greyness(age, t["greying"])

    skin = skin_albedo(faces.skin_tone)
    skin = skin * torch.tensor([1.02, 0.93, 0.88], device=skin.device)  # blood: the swatches are cooler than lit skin
    dark = skin.mean(1)
    # Exposure meant for faces: the darkest steps would else sink below sensor noise.
    skin = skin * (1 + 1.0 * (1 - ramp(dark, 0.0, 0.12)))[:, None]
    pigment = torch.stack([light_of(code) for code in HAIR_COLORS.values()]).to(skin.device)[faces.hair_color]
    white = light_of(GREY_HAIR).to(skin.device).expand_as(pigment)
    hair = _mix(pigment, white, grey)
    brow = _mix(pigment * 0.75, white * 0.6, grey * 0.8)
    rose = torch.tensor([0.50, 0.12, 0.13], device=skin.device)
    # Lips are darker and redder than light skin, pinker and a little lighter than dark skin.
    pale, deep = (torch.tensor(c, device=skin.device) for c in ([0.80, 0.50, 0.50], [1.75, 1.05, 1.15]))
    light = ramp(dark, 0.0, 0.25)
    lip = _mix(skin * deep, skin * pale, light)
    lip = _mix(lip, rose * (0.45 + 0.55 * light)[:, None], 0.10 + 0.42 * (1 - male))
    iris = torch.stack([light_of(code) for code in EYE_COLORS.values()]).to(skin.device)[faces.eye_color]
    frame = _hue(s["frame_colour"], 0.30 * (s["frame_colour"] * 5 % 1), 0.10 + 0.22 * (s["frame_colour"] * 3 % 1))
    full = torch.ones_like(skin)

    p: dict[str, Tensor] = {name: t[name] for name in ("ears", "nose_bridge", "cheeks", "parting")}
    p |= {name: value for name, value in t.items() if name.startswith("spot")}
    p |= {name: s[name] for name in ("gaze", "strands", "frame_style")}
    p |= {name: act[name] for name in ("furrow", "inner_brow", "press", "upper_lip")}
    squint = (act["squint"] + 0.25 * act["nose_wrinkle"]).clamp(max=1)
    smile = act["corner"].clamp(min=0)
    p |= dict(male=male, old=old, wrinkle=wrinkle, beard=beard, glasses=faces.glasses_opacity, squint=squint)
    p |= dict(
        head_w=0.745 + 0.035 * t["face_width"] + 0.012 * male,
        head_v=-0.10 + 0 * male,
        head_top=0.83 + 0.0 * male,
        head_low=1.015 + 0.022 * t["chin"] + 0.028 * male,
        taper=0.37 - 0.20 * male - 0.06 * t["jaw"] - 0.03 * t["cheeks"],
        sag=ramp(age, 45.0, 85.0),
        flush=(0.55 + 0.0 * male) * (0.35 + 0.65 * ramp(dark, 0.02, 0.35)),
        smile_cheek=smile,
        # Eyes and brows.
        eye_u=0.345 + 0.022 * t["eye_spacing"],
        eye_v=-0.115 + 0.018 * t["eye_height"],
        eye_w=0.168 + 0.014 * t["eye_size"] + 0.006 * (1 - male),
        eye_tilt=0.14 + 0.12 * t["eye_tilt"] - 0.10 * old,
        lid_up=(0.084 + 0.010 * t["eye_size"] + 0.012 * (1 - male) + 0.006 * s["lid_mood"] + 0.040 * act["lid_open"])
        * (1 - 0.38 * squint)
        * (1 - 0.24 * old),
        lid_low=(0.060 + 0.006 * t["eye_size"] + 0.012 * act["lid_open"]) * (1 - 0.42 * squint),
        lid_open=act["lid_open"],
        droop=old,
        brow_raise=act["brow_raise"],
        brow_v=-0.315
        - 0.028 * t["brow_height"]
        - 0.042 * (1 - male)
        - 0.014 * s["brow_mood"]
        - 0.105 * act["brow_raise"]
        + 0.055 * act["furrow"]
        + 0.02 * old
        + 0.03 * act["nose_wrinkle"],
        brow_arch=0.030 + 0.045 * (1 - male) + 0.018 * t["brow_arch"] + 0.02 * act["brow_raise"],
        brow_half=(0.019 + 0.029 * male + 0.007 * t["brow_thickness"]) * (1 - 0.15 * old),
        brow_alpha=0.82 + 0.1 * male - 0.22 * grey,
        # Nose.
        nose_w=0.108 + 0.155 * faces.nose_width + 0.012 * smile + 0.015 * act["nose_wrinkle"],
        nose_tip=0.165 + 0.025 * t["nose_length"] - 0.03 * act["nose_wrinkle"],
        nose_base=0.255 + 0.028 * t["nose_length"] + 0.012 * old - 0.035 * act["nose_wrinkle"],
        # Mouth.
        mouth_v=0.535 + 0.018 * t["mouth_height"] + 0.012 * male,
        mouth_w=(0.315 + 0.022 * t["mouth_width"] + 0.012 * male + 0.075 * smile) * (1 - 0.28 * act["narrow"]),
        corner=0.125 * act["corner"] + 0.006 * s["mouth_mood"],
        gap=0.105 * act["gap"],
        teeth=(1.0 - 0.85 * act["narrow"]).clamp(min=0),
        lip_up=(0.029 + 0.060 * faces.lip_fullness) * (1 - 0.22 * old) * (1 - 0.45 * act["press"]),
        lip_low=(0.036 + 0.082 * faces.lip_fullness) * (1 - 0.18 * old) * (1 - 0.45 * act["press"]),
        # Hair.
        length=torch.tensor(_LENGTHS, device=skin.device)[faces.hair_length],
        hairline=-0.66 - 0.045 * t["hairline"],
        fringe=t["fringe"].clamp(min=0),
        recede=ramp(age, 32.0, 80.0) * (0.15 + 0.85 * male) * (0.62 + 0.38 * t["recession"]),
        thin=ramp(age, 45.0, 85.0) * (0.20 + 0.50 * male * (0.6 + 0.4 * t["recession"])),
        dense=1.0 - 0.05 * old,
        ambient=s["ambient"],
    )
    light = torch.stack([0.75 * s["light_side"], -s["light_height"], torch.full_like(age, 0.85)], 1)
    light = light / light.norm(dim=1, keepdim=True)
    half = light + torch.tensor([0.0, 0.0, 1.0], device=skin.device)
    half = half / half.norm(dim=1, keepdim=True)
    for k, axis in enumerate("xyz"):
        p[f"light_{axis}"], p[f"half_{axis}"] = light[:, k], half[:, k]
    p["shine"] = 0.045 + 0.06 * (1 - ramp(dark, 0.0, 0.3))
    p = {name: value[:, None, None] for name, value in p.items()}
    colours = dict(
        skin=skin,
        hair=hair,
        brow=brow * 0.8 + 0.2 * skin * 0.2,
        beard_colour=_mix(pigment * 0.8, white * 0.9, grey),
        lip=lip,
        iris=iris,
        pupil=0.004 * full,
        white=torch.tensor([0.80, 0.77, 0.74], device=skin.device) * full,
        spark=0.95 * full,
        lash=0.012 * full,
        cavity=torch.tensor([0.075, 0.018, 0.016], device=skin.device) * full,
        tooth=torch.tensor([0.88, 0.84, 0.76], device=skin.device) * _mix(full, full * 0.86, old),
        frame=frame,
        cloth=_hue(s["cloth_hue"], torch.full_like(age, 0.16), s["cloth_value"]),
        back=_hue(s["back_hue"], s["back_colour"], s["back_value"]),
    )
    p |= {name: value[:, :, None, None] for name, value in colours.items()}
    return p
