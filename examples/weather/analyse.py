"""Seattle's weather, day by day over four years: what rain and warmth have to do with the month.

Runs inside a sandbox: installs what it needs, prints a table, draws a chart. `analyse.py [FIRST_YEAR [CHART]]`; without
CHART only the table.
"""

import csv
import subprocess
import sys
import time
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from statistics import mean

__all__ = ("main",)

DATA = ["vega_datasets"]
DRAWING = ["matplotlib", "contourpy", "cycler", "fonttools", "kiwisolver", "numpy", "packaging", "pillow", "pyparsing"]
DRAWING += ["python-dateutil", "six"]
PIP = ["-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", "--root-user-action=ignore"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def main(first_year: int, chart: str | None) -> None:
    install(DATA + DRAWING if chart else DATA)
    days = [day for day in read() if int(day["date"][:4]) >= first_year]
    months = by_month(days)
    print(f"{len(days)} days from {days[0]['date']} to {days[-1]['date']}", flush=True)
    print("month  wet days  rain mm  max C  min C")
    for name, (wet, rain, high, low) in zip(MONTHS, months, strict=True):
        print(f"{name:5}  {wet:7.0%}  {rain:7.1f}  {high:5.1f}  {low:5.1f}")
    wettest = max(range(12), key=lambda month: months[month][1])
    print(f"the wettest month is {MONTHS[wettest]}: {months[wettest][1]:.1f} mm a day", flush=True)
    if chart:
        draw(months, chart)
        print(f"chart: {chart}")


def install(packages: list[str]) -> None:
    """Only what is missing, so that a second run in the same sandbox starts at once."""
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        started = time.perf_counter()
        subprocess.run([sys.executable, *PIP, *missing], check=True)
        print(f"installed {len(missing)} packages in {time.perf_counter() - started:.1f} s", flush=True)


def is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def read() -> list[dict[str, str]]:
    """The package's own copy of the data, one line a day; the package itself would ask for pandas."""
    file = Path(str(distribution("vega_datasets").locate_file("vega_datasets/_data/seattle-weather.csv")))
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def by_month(days: list[dict[str, str]]) -> list[tuple[float, float, float, float]]:
    """Share of wet days, rain a day, highest and lowest temperature, each as the month's mean."""
    groups: dict[int, list[dict[str, str]]] = defaultdict(list)
    for day in days:
        groups[int(day["date"][5:7])].append(day)
    return [
        (
            mean(float(day["precipitation"]) > 0 for day in groups[month]),
            mean(float(day["precipitation"]) for day in groups[month]),
            mean(float(day["temp_max"]) for day in groups[month]),
            mean(float(day["temp_min"]) for day in groups[month]),
        )
        for month in range(1, 13)
    ]


def draw(months: list[tuple[float, float, float, float]], chart: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, rain = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    rain.bar(MONTHS, [month[1] for month in months], color="#7aa6c2", label="rain")
    rain.set_ylabel("rain, mm a day")
    warmth = rain.twinx()
    warmth.plot(MONTHS, [month[2] for month in months], color="#c4572e", marker="o", label="highest")
    warmth.plot(MONTHS, [month[3] for month in months], color="#3b5b92", marker="o", label="lowest")
    warmth.set_ylabel("temperature, °C")
    figure.legend(loc="outside lower center", ncols=3)
    rain.set_title("Seattle, by month")
    figure.savefig(chart, dpi=120)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2012, sys.argv[2] if len(sys.argv) > 2 else None)
