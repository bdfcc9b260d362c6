"""The same as tokens.py for a folder of SmolLM2-135M-Instruct: smollm2_tokens.py FOLDER."""

import sys

from generator import write
from tokens import PACKAGES, answers

write(__file__, PACKAGES, smollm2=answers(sys.argv[1]))
