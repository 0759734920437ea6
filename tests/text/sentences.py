"""Sentences written for these tests, with what is awkward about spacing, case and punctuation in three languages."""

from __future__ import annotations

SENTENCES = [
    "The old baker opens his shop before sunrise.",
    "A girl in a red coat feeds the ducks, and her brother watches.",
    "It's raining; don't forget the children's boots!",
    '"Where are we?" she asked. "Nobody knows," he said...',
    "He paid $3.50 for 12 apples (and 2 pears) at 9:30.",
    "The well-known T-shirt costs 5% less -- or so they say.",
    "Der Müller fährt mit dem Fahrrad über die Brücke.",
    "Zwei Kinder spielen im Schnee, während die Großmutter Äpfel schält.",
    "„Wie spät ist es?“, fragte er; „fünf nach halb zwölf.“",
    "Das Straßencafé öffnet erst um 8 Uhr.",
    "L'homme qu'elle aime n'est pas d'ici, c'est l'ami de Jean.",
    "Aujourd'hui, jusqu'à midi, l'école est fermée : quel dommage !",
    "« Où êtes-vous ? » demanda-t-il à l’étrangère.",
    "  two spaces before, three   inside, one behind ",
    "tab\there, no-break\u00a0space there",
    "smile 🙂 and a family 👩\u200d👩\u200d👧, naïve café",
    "ALL CAPITALS and MiXeD CaSe",
    "rock 'n' roll, the '90s, O'Brien's 'quoted' word",
    "a",
    "",
    " ",
    "___ under_scores __init__ and ## signs ##",
]

EVERYTHING = [*SENTENCES, *(sentence.lower() for sentence in SENTENCES)] * 3
