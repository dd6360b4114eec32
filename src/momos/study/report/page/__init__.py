"""The report: what finished runs show, as one page that works from disk."""

from momos.study.report.page.page import report as report
