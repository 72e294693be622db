"""Tags that link runs and journals."""

JOURNAL_TAG = "grad.journal"  # the id of the journal from which a run was made
PARENT_TAG = "mlflow.parentRunId"
TRIAL_TAG = "grad.trial"  # of the run of one arm of a trial: won or lost
