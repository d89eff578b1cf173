"""Which of the four modalities an MR series is, by its description and, failing that, its timing.

The description decides where it names a weighting. Else the timing does, by the usual bounds of spin echo
(short TE < 30 ms, long TE about three times that, short TR < 500 ms, long TR > 1500 ms: imaios.com, e-MRI,
"Signal weighting"), rounded outwards for 3 T, and by the inversion time: about 2000 ms nulls fluid (FLAIR;
Hajnal et al., 1992, and 1600 ms or more in its 3D forms), 600 to 1300 ms gives T1 weight (MP-RAGE; Mugler &
Brookeman, 1990), and fat's 150 to 250 ms (STIR) is none of the four.
"""

from __future__ import annotations

import re

from slicewise.studies.dicom_headers import Acquisition

SKIPPED_TYPES = frozenset(
    {"LOCALIZER", "ADC", "DIFFUSION", "TRACEW", "FA", "PERFUSION", "MIP", "MINIP", "PROJECTION IMAGE", "SUBTRACT"}
    | {"SUBTRACTION", "SUB", "PHASE MAP", "PHASE", "P", "I", "VELOCITY", "T1 MAP", "T2 MAP", "T2_STAR", "T2 STAR MAP"}
    | {"SCREEN SAVE", "CSA REPORT", "MOSAIC", "RCBV", "RCBF", "MTT", "TTP"}
)
SKIPPED_WORDS = re.compile(
    r"\b(loc|locali[sz]er\w*|scout|survey|(3|three) ?plane|adc|e?dwi|dti|diff|diffusion|trace|fa(?! ?\d)|ep2d|epi"
    r"|perf|perfusion|dsc|dce|r?cb[vf]|mtt|ttp|swi|swan|susc\w*|tof|m?mra|mrv|angio\w*|cine|ciss|fiesta|bold|fmri|asl"
    r"|p?casl|svs|csi|spectro\w*|mrs|stir|field ?map|calib\w*|mip|minip|subtract\w*|sub|phase|mp2rage|screen\w*"
    r"|t[12] ?map\w*|report)\b|t2 ?w? ?(\*|star)"
)
GRADIENT_WORDS = re.compile(r"\b(gre|fl2d|hemo|merge|medic)\b")
START = r"(?:^|[^a-z]|ax|sag|cor|tra|obl|vol|[23]d)"
T1_WORDS = re.compile(rf"{START}t1(?!\d)|mp ?rage|bravo|f?spgr|\btfl|\bmpr\b|\btfe\b|\bvibe\b|\bflash\b|thrive")
T2_WORDS = re.compile(rf"{START}t2(?!\d)")
PD_WORDS = re.compile(r"\bpd|proton|\bdual\b")
FLAIR_WORDS = re.compile(r"flair|tirm|dark ?fluid")
CONTRAST_WORDS = re.compile(
    r"\+ ?c\b|\bc ?\+|\bpost(?! ?op| ?surg|erior)|\bgad|\bgd\b|\bce\b|\bcontrast\b|t1 ?w? ?(c|ce|gd|km)\b|\bkm\b"
    r"|(?<!un)enhanced|magnevist|dotarem|multihance|prohance|omniscan|\bwith c"
)
PLAIN_WORDS = re.compile(
    r"\bpre\b|\bpre ?(gd|gad|con)|\bwo\b|\bw o\b|without|\bnon? ?(gd|gad|con|c\b)|\bnc\b|nativ|unenhanced|\bplain\b"
)
BOTH_WORDS = re.compile(r"\bw (and )?w ?o\b")  # "W/WO": with and without
NO_AGENT = re.compile(r"^(no|none|n|0|na|n/a|no contrast|without.*|unknown)?$", re.I)

SHORT_TE_MS, LONG_TE_MS = 30, 70
SHORT_TR_MS, LONG_TR_MS = 1000, 2000
GRADIENT_TE_MS = 12  # longer gradient echoes are T2* weighted
FLAIR_TI_MS, T1_TI_MS = 1500, (500, 1400)


def recognise(acquisition: Acquisition) -> tuple[str | None, str]:
    """Tell a series' modality.

    Returns:
        ``flair``, ``t1``, ``t1ce`` or ``t2``, and what told it; or None and why it is none of them.
    """
    skipped = sorted(SKIPPED_TYPES & set(acquisition.image_type))
    if skipped:
        return None, f"ImageType says {skipped[0]}"
    if "EP" in acquisition.sequence:
        return None, "it is echo-planar, as diffusion and perfusion are"
    words = re.sub(r"[^a-z0-9+*]+", " ", acquisition.text.lower()).strip()
    if match := SKIPPED_WORDS.search(words):
        return None, f"its description says {match.group().strip()!r}"
    weighting, why = _by_words(words), "description"
    if weighting is None:
        weighting, why = _by_timing(acquisition), "timing"
    if weighting is None:
        return None, "neither its description nor its timing tells a modality"
    if weighting == "t1" and _has_contrast(words, acquisition):
        return "t1ce", why
    return weighting, why


def _by_words(words: str) -> str | None:
    t1, t2 = bool(T1_WORDS.search(words)), bool(T2_WORDS.search(words))
    if FLAIR_WORDS.search(words):
        return "t1" if t1 and not t2 else "flair"
    if t1 == t2 or (t2 and PD_WORDS.search(words)) or (t2 and GRADIENT_WORDS.search(words)):
        return None
    return "t1" if t1 else "t2"


def _by_timing(acquisition: Acquisition) -> str | None:
    te, tr, ti = acquisition.echo_ms, acquisition.repetition_ms, acquisition.inversion_ms or 0.0
    if te is None or tr is None or te <= 0 or tr <= 0:
        return None
    gradient = "GR" in acquisition.sequence and "SE" not in acquisition.sequence
    if ti:
        if ti >= FLAIR_TI_MS and te >= LONG_TE_MS and tr >= LONG_TR_MS:
            return "flair"
        return "t1" if T1_TI_MS[0] <= ti <= T1_TI_MS[1] and te < SHORT_TE_MS else None
    if gradient:
        return "t1" if te <= GRADIENT_TE_MS and tr <= SHORT_TR_MS else None
    if te < SHORT_TE_MS and tr <= SHORT_TR_MS:
        return "t1"
    return "t2" if te >= LONG_TE_MS and tr >= LONG_TR_MS else None


def _has_contrast(words: str, acquisition: Acquisition) -> bool:
    """The description decides if it says one thing; the tag of the agent is often left set for a whole visit."""
    words = BOTH_WORDS.sub(" ", words)
    named, plain = bool(CONTRAST_WORDS.search(words)), bool(PLAIN_WORDS.search(words))
    if named != plain:
        return named
    return not NO_AGENT.match(acquisition.contrast_agent)
