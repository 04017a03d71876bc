"""table.py junit.xml...: a line for each spec that ran or was skipped at run time, and how many did what."""
import collections
import sys
import xml.etree.ElementTree as ElementTree

# Ginkgo's own steps, which it reports as if they were specs
STEPS = ("[Synchronized", "[Report", "[BeforeSuite", "[AfterSuite")


def outcome(case):
    """(result, reason) of a spec; None if the focus left it out."""
    for tag, result in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(tag)
        if found is None:
            continue
        reason = (found.get("message") or found.text or "").strip().split("\n")[0][:200]
        if result == "skipped" and not reason.replace("skipped", "").strip(" -"):
            return None
        return result, reason
    return "passed", ""


counts = collections.Counter()
print("| spec | result | minutes | note |\n|---|---|---|---|")
for path in sys.argv[1:]:
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = case.get("name", "")
        told = None if name.startswith(STEPS) else outcome(case)
        if told:
            counts[told[0]] += 1
            name = name.replace("[It] ", "").replace("|", "\\|")
            minutes = float(case.get("time", 0)) / 60
            print(f"| {name} | {told[0]} | {minutes:.1f} | {told[1].replace('|', chr(92) + '|')} |")
print("\n" + ", ".join(f"{count} {result}" for result, count in sorted(counts.items())))
