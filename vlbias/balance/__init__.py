"""Plan, source, edit, verify, write: the batch pipeline that turns a biased face dataset into a balanced one."""

from vlbias.balance.balancer import Balancer
from vlbias.balance.identity import identity_scorer
from vlbias.balance.plan import Cost, EditPlanSettings, Plan, make_plan, wanted_counts
from vlbias.balance.poles import Poles, column_labels, resolve_poles
from vlbias.balance.publish import push_dataset
from vlbias.balance.review import Decision, Review, add_decisions
from vlbias.balance.run import Result
from vlbias.balance.run_folder import verify_run
from vlbias.balance.settings import BalanceSettings
from vlbias.balance.verification import Checks, Reason

__all__ = [
    "BalanceSettings",
    "Balancer",
    "Checks",
    "Cost",
    "Decision",
    "EditPlanSettings",
    "Plan",
    "Poles",
    "Reason",
    "Result",
    "Review",
    "add_decisions",
    "column_labels",
    "identity_scorer",
    "make_plan",
    "push_dataset",
    "resolve_poles",
    "verify_run",
    "wanted_counts",
]
