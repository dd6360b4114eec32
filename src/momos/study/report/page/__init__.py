"""The report: what finished runs show, as one page that works from disk."""

from momos.study.report.page.report import report as report
