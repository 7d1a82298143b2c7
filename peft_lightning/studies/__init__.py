"""Studies: grids of ordinary runs, what was chosen of them, and the table and figure they make."""

from peft_lightning.studies.execution import run_study
from peft_lightning.studies.study import PlannedRun, Study, read_study

__all__ = ["PlannedRun", "Study", "read_study", "run_study"]
