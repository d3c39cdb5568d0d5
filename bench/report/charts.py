# SPDX-License-Identifier: Apache-2.0
"""The report's plots. Each function gives a plotly figure, or None where the result has nothing to draw."""

import math

import plotly.graph_objects as go

import results

# Ours in blues, peers in warm colours: the same everywhere.
OURS = {"fairlead precise": "#1d4ed8", "fairlead fast": "#38bdf8", "fairlead float32": "#1e3a8a"}
PEERS = ["#f97316", "#a16207", "#be123c", "#6b7280"]
GRID = "#e5e7eb"
WORDS = results.ENGINE_TESTS


def colour(who: str, peers: list[str]) -> str:
    for name, value in OURS.items():
        if who.startswith(name):
            return value
    return PEERS[peers.index(who) % len(PEERS)] if who in peers else "#6b7280"


def styled(figure: go.Figure, x: str, y: str, height: int = 380) -> go.Figure:
    figure.update_layout(
        height=height, margin={"l": 64, "r": 24, "t": 24, "b": 56}, paper_bgcolor="white", plot_bgcolor="white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#1f2937"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "title": None}, hoverlabel={"namelength": -1},
    )
    figure.update_xaxes(title=x, gridcolor=GRID, zeroline=False, linecolor="#9ca3af", ticks="outside")
    figure.update_yaxes(title=y, gridcolor=GRID, zeroline=False, linecolor="#9ca3af", rangemode="tozero")
    return figure


def peers_of(result: dict) -> list[str]:
    return [peer["name"] for peer in result["peers"]]


def ratios(rows: list[tuple[str, str, str, float]]) -> go.Figure | None:
    """rows: (what, ours, peer, ratio)."""
    if not rows:
        return None
    figure = go.Figure()
    for pair in dict.fromkeys((mine, peer) for _, mine, peer, _ in rows):
        mine = [row for row in rows if row[1:3] == pair]
        figure.add_bar(y=[row[0] for row in mine], x=[row[3] for row in mine], orientation="h", name=f"{pair[0]} : {pair[1]}",
                       marker_color=colour(pair[0], []), marker_pattern_shape="" if pair[1] == rows[0][2] else "/",
                       text=[f"{row[3]:.1f}x" for row in mine], textposition="outside", cliponaxis=False)
    figure.add_vline(x=1, line_color="#6b7280", line_dash="dot")
    count = len(dict.fromkeys(row[0] for row in rows)) * len(dict.fromkeys(row[1:3] for row in rows))
    styled(figure, "times the peer's rate (1 = equal)", "", height=120 + 26 * count)
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def rate_sweep(result: dict) -> go.Figure | None:
    # A rate at which nothing was answered has no latencies.
    points = [point for point in (result["serving"] or {}).get("rates", []) if point["ttft_ms"] and point["tpot_ms"]]
    if not points:
        return None
    figure = go.Figure()
    x = [point["requests_per_s"] for point in points]
    for latency, words in (("ttft_ms", "time to first token"), ("tpot_ms", "time per output token")):
        for percentile, dash in (("p50", "solid"), ("p99", "dot")):
            figure.add_scatter(x=x, y=[point[latency][percentile] for point in points], name=f"{words}, {percentile}",
                               mode="lines+markers", line={"dash": dash, "color": "#1d4ed8" if latency == "ttft_ms" else "#f97316"})
    styled(figure, "requests per second (open loop, Poisson; 128 tokens in, 64 out)", "milliseconds (logarithmic)")
    figure.update_yaxes(type="log", rangemode="normal", dtick="D2", exponentformat="none")
    return figure


def latencies(result: dict, load: str, latency: str) -> go.Figure | None:
    rows = {who: row for (who, name), row in results.serving(result).items() if name == load and latency in row}
    if not rows:
        return None
    figure = go.Figure()
    peers = [who for who in rows if not results.is_ours(who)]
    for who, row in rows.items():
        figure.add_bar(x=list(row[latency]), y=list(row[latency].values()), name=who, marker_color=colour(who, peers),
                       marker_pattern_shape="/" if who.endswith("grpc") else "",
                       text=[results.number(value) for value in row[latency].values()], textposition="outside", cliponaxis=False)
    return styled(figure, "percentile", "milliseconds")


def curve(result: dict, prefix: str, key: str, x: str, logarithmic: bool) -> go.Figure | None:
    """One line an engine over `key` ("b" batch, "d" depth) of the sweep's tests that begin with `prefix`."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in result["sweep"] or []:
        words = row["test"].split()
        if not words[0].startswith(prefix):
            continue
        values = {word[0]: int(word[1:]) for word in words[1:] if word != "@"}
        if set(values) - {key}:
            continue
        lines.setdefault(row["who"], []).append((values.get(key, 1 if key == "b" else 0), row["median"]))
    if not any(len(points) > 1 for points in lines.values()):
        return None
    figure = go.Figure()
    for who, points in lines.items():
        points.sort()
        figure.add_scatter(x=[p[0] for p in points], y=[p[1] for p in points], name=who, mode="lines+markers",
                           line={"color": colour(who, [])})
    styled(figure, x, "tokens per second, all sequences", height=340)
    if logarithmic:
        ticks = sorted({point[0] for points in lines.values() for point in points})
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[str(tick) for tick in ticks])
    return figure


def roofs(result: dict) -> list[tuple[str, float]]:
    kinds = {"f32 multiply-add": ("f32_fma",), "bf16": ("bf16_dot", "bf16_tile"),
             "int8": ("int8_dot", "int8_dot_int16_sums", "int8_tile")}
    return [(name, value) for name, names in kinds.items() if (value := results.best_limit(result, names)) > 0]


def roofline(result: dict) -> go.Figure | None:
    bandwidth = results.best_limit(result, ("memory_read",))
    points = model_points(result)
    ops = [row for row in result["ops"] or [] if "/Matmul/" in row["name"] and row.get("GB/s")]
    if not bandwidth or not (points or ops):
        return None
    figure = go.Figure()
    for index, (name, roof) in enumerate(sorted(roofs(result), key=lambda item: item[1])):
        knee = roof / bandwidth
        figure.add_scatter(x=[0.1, knee, 10000], y=[0.1 * bandwidth, roof, roof], mode="lines", showlegend=False,
                           line={"color": "#9ca3af", "dash": ["solid", "dash", "dot"][index % 3]}, hoverinfo="skip")
        figure.add_annotation(x=3.97, y=math.log10(roof), text=f"{name}, {results.number(roof)}", showarrow=False, xanchor="right",
                              yanchor="bottom", font={"size": 12, "color": "#4b5563"})  # in powers of ten, as log axes want it
    if ops:
        figure.add_scatter(x=[row["GFLOP/s"] / row["GB/s"] for row in ops], y=[row["GFLOP/s"] for row in ops], mode="markers",
                           name="single matmuls (precise)", marker={"color": "#94a3b8", "size": 6, "symbol": "circle-open"},
                           text=[row["name"].split("/", 1)[1].removesuffix("/real_time") for row in ops],
                           hovertemplate="%{text}<br>%{y:.0f} GOP/s<extra></extra>")
    for who in dict.fromkeys(point[0] for point in points):
        mine = [point for point in points if point[0] == who]
        figure.add_scatter(x=[p[2] for p in mine], y=[p[3] for p in mine], name=who, mode="markers", text=[WORDS[p[1]] for p in mine],
                           hovertemplate="%{text}<br>%{y:.0f} GOP/s<extra>" + who + "</extra>",
                           marker={"color": colour(who, peers_of(result)), "size": 11, "line": {"color": "white", "width": 1},
                                   "symbol": ["circle" if p[1] == "tg64" else "diamond" for p in mine]})
    styled(figure, f"operations per byte of weights (memory: {bandwidth:.1f} GB/s)", "10<sup>9</sup> operations per second", height=460)
    figure.update_xaxes(type="log", range=[0, 4], dtick=1, exponentformat="none")
    figure.update_yaxes(type="log", rangemode="normal", range=[0.5, None], dtick=1, exponentformat="none")
    return figure


def model_points(result: dict) -> list[tuple[str, str, float, float]]:
    """(who, test, operations per byte, 10^9 operations/s) of whole models: the linear layers alone."""
    model, points = result["model"], []
    layers, head = model["layer_parameters"], model["head_parameters"]
    for (who, test), row in results.engine(result).items():
        if test in ("tg64", "pp512"):
            a_token = 2 * (layers + head) if test == "tg64" else 2 * layers
            together = 1 if test == "tg64" else 512
            points.append((who, test, a_token * together / model["decode_weight_bytes"], row["median"] * a_token / 1e9))
    return points
