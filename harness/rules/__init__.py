"""The static rules: typed checks of a submission's files that never execute them. RULES.md is generated from this package.

A static check cannot stop a determined cheat, and need not: the clock, the data and the evaluation are out of the entry's
reach. The rules make entries readable, comparable and honest in the ordinary case, and say so in time.
"""

from __future__ import annotations

from harness.rules import imports, patching, shape, text, torch_use
from harness.rules.registry import RULES, Rule, RuleFinding
from harness.rules.source import SourceFile, UnreadableSource
from harness.submission import SLOT_FILES, Submission

__all__ = ["RULES", "Rule", "RuleFinding", "SourceFile", "check_rules", "check_source"]

RULE_MODULES = (imports, patching, shape, text, torch_use)
"""Importing a module adds its rules to RULES."""


def check_rules(submission: Submission) -> list[RuleFinding]:
    """All places in the submission's slot files that break a rule, by file, line and rule. Executes nothing."""
    sources = [SourceFile(name, content.decode("utf-8")) for name, content in submission.files.items() if name in SLOT_FILES]
    return [finding for source in sources for finding in check_source(source)]


def check_source(source: SourceFile) -> list[RuleFinding]:
    """The findings of all rules in one slot file, by line. Text that is not Python is one finding of R01."""
    try:
        _ = source.tree
    except UnreadableSource as error:
        return [RuleFinding("R01", "refuse", source.name, error.line, error.message)]
    found = [
        RuleFinding(rule.id, rule.severity, source.name, line, message)
        for rule in RULES.values()
        for line, message in dict.fromkeys(rule.check(source))
    ]
    return sorted(found, key=lambda finding: (finding.line, finding.rule))
