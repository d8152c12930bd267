"""The words of the report, for readers who have not met them."""

from __future__ import annotations

from narrun_async.reporting.html.blocks import Fact, Facts, Section

_WORDS = {
    "Narrative": "A short text about one incident, written by a coroner or medical examiner (CME) or by law "
    "enforcement (LE). An incident has one or both.",
    "Answer": "What the model said of a narrative: yes or no, a confidence from 0 to 1, indicators, a rationale.",
    "Detected": "The answer is yes. An incident is detected if any of its answered narratives is.",
    "Label": "What people said of the same narrative or incident. It is taken for the truth here.",
    "95 % interval": "If the whole were repeated many times, 95 of 100 such intervals would hold the true value. A "
    "wide one says that few cases were looked at.",
    "Sensitivity (recall)": "Of the narratives labelled yes, the share that is detected. What it lacks was missed.",
    "Specificity": "Of the narratives labelled no, the share that is not detected.",
    "PPV (precision)": "Of the narratives detected, the share labelled yes. It falls where violence is rarer.",
    "NPV": "Of the narratives not detected, the share labelled no.",
    "F1": "Sensitivity and PPV in one number (their harmonic mean). It ignores what is rightly not detected.",
    "MCC": "Matthews' correlation of answer and label: 1 all right, 0 no better than chance, -1 all wrong.",
    "Balanced accuracy": "The mean of sensitivity and specificity: 0.5 is what guessing gives.",
    "Raw agreement (accuracy)": "How often answer and label are the same. High wherever yes is rare.",
    "Cohen's kappa": "Agreement beyond what two judges would reach at random: 0 none beyond chance, 1 all.",
    "PABAK": "What kappa would be if yes and no were equally common.",
    "Gwet's AC1": "Agreement beyond chance, with a chance that is not driven by rarity.",
    "Apparent share": "The share detected, right or wrong.",
    "Corrected share": "The apparent share, with false alarms taken off and missed ones put on, as far as sensitivity "
    "and specificity are known (Rogan and Gladen).",
    "Brier score": "The mean squared distance of the stated probability from the truth: 0 is perfect.",
    "Average precision": "Precision averaged over all thresholds: 1 is perfect; the labelled share is what guessing "
    "gives.",
    "Canary": "A narrative that is asked again in mid-work, to see whether it is answered alike.",
    "Cohort": "The narratives of an experiment, fixed when it was made.",
    "Run": "The life of one process that worked on the experiment; work that was stopped goes on in another one.",
    "SHA-256": "A fingerprint of a file or text: equal fingerprints mean equal contents.",
}


def glossary_section() -> Section:
    facts = Facts(items=tuple(Fact(name=name, value=value) for name, value in _WORDS.items()))
    return Section(slug="glossary", title="Glossary", blocks=(facts,))
