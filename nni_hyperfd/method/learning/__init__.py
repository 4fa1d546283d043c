"""How the two networks learn, by eq. 11.

Both learn on the platform's own data sets (`warm_up`); then, from task to task, the extractor next to the data
(`update_extractor`) and the encoder on the platform (`update_encoder`). All functions leave what they are given
untouched, return trained copies, run on the CPU and draw every random number from their `seed`: same inputs, same seed,
same bytes.
"""

from nni_hyperfd.method.learning.encoder import update_encoder
from nni_hyperfd.method.learning.extractor import LearnedExtractor, update_extractor
from nni_hyperfd.method.learning.tasks import ClientTask, OfflineTask, TaskExperience
from nni_hyperfd.method.learning.warm_up import WarmUp, warm_up

__all__ = [
    "ClientTask",
    "LearnedExtractor",
    "OfflineTask",
    "TaskExperience",
    "WarmUp",
    "update_encoder",
    "update_extractor",
    "warm_up",
]
