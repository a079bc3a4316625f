"""64 fixed texts, by whose vectors a change of the model behind a name is noticed. They must never change."""

from __future__ import annotations

_SUBJECTS = (
    "the tide in a harbour",
    "a sourdough starter",
    "the axle of a cart",
    "compound interest",
    "a binary search tree",
    "the migration of storks",
    "a leaking kitchen tap",
    "the second violin",
)
_FORMS = (
    "{}",
    "What is {}?",
    "How would you explain {} to a child of seven?",
    "def describe():\n    return 'a note about {}'  # TODO: write it",
    "Yesterday we talked about {} for an hour, and nobody could agree on what matters most about it.",
    "Erkläre mir in zwei Sätzen, was man über „{}“ wissen sollte.",
    "{} - a short history in dates: 1612, 1788, 1901 and 2024; prices rose by 3.5 % in between.",
    "There are three things to know about {}. First, it takes longer than one would think. Second, small errors add "
    "up, so it pays to look twice. Third, those who do it every day seldom agree with those who write about it. None "
    "of this is written in the manuals, which were made by people in a hurry.",
)
CANARIES: tuple[str, ...] = tuple(form.format(subject) for subject in _SUBJECTS for form in _FORMS)
