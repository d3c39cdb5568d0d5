# SPDX-License-Identifier: Apache-2.0
"""Chat templates against Jinja2: random templates (jinja_grammar.py), rendered as transformers does and by our engine;
text must be equal, or both must fail, raise_exception's message included. And whose characters are whose: the
caller's letters come out untrusted, the template's trusted.

  jinja_differential.py --lines PROGRAM [--cases N] [--seed N] [--processes N] [--transformers] [--show N]

PROGRAM is jinja_lines. --transformers renders through transformers' own environment (which must be installed) rather
than the one below, which is made like it. Case i of a seed is the same whatever N is. Exit code 1: differences that
STATED does not list."""
import argparse
import collections
import datetime
import json
import multiprocessing
import re
import signal
import subprocess
import sys
import warnings

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

from jinja_grammar import CALLER, LITERAL, Grammar

# Where we differ, and mean to: how the difference is recognised, what is said of it. "ours" and "theirs" are an answer
# and a text or an error.
STATED = {
    "integers end at -2^63 and 2^64": lambda ours, theirs, template: "overflow" in ours.get("error", "") or "2^64" in ours.get("error", ""),
    "there are no complex numbers": lambda ours, theirs, template: "complex numbers" in ours.get("error", ""),
    "a slice of a literal that has none is an error": lambda ours, theirs, template: "is not subscriptable" in ours.get("error", ""),
    "a literal dict with a key that cannot be one, never evaluated, is no error": lambda ours, theirs, template: "unhashable type" in str(theirs),
    "an unknown filter in what constants decide is an error": lambda ours, theirs, template: "No filter named" in ours.get("error", ""),
    "a negative literal in parentheses is what a power is of": lambda ours, theirs, template: re.search(r"\(-[\d.]+\)+ \*\*", template),
    "a loop of unknown length prints ? for it": lambda ours, theirs, template: "<LoopContext" in str(theirs),
    "functions and generators print without their address": lambda ours, theirs, template: " at 0x" in str(theirs).lower() or "object s" in str(theirs)
    or "<class 'dict'>" in str(theirs),
}

NOW = datetime.datetime(2025, 7, 4, 9, 5, 3)
CASE_SECONDS = 2


class GenerationTag(jinja2.ext.Extension):
    """{% generation %}: prints its body, in a scope of its own."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def make_environment():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = NOW.strftime
    return environment


def make_compiler(with_transformers):
    if not with_transformers:
        return make_environment().from_string
    from transformers.utils import chat_template_utils

    class FixedDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return NOW

    chat_template_utils.datetime = FixedDatetime
    return chat_template_utils._compile_jinja_template.__wrapped__


class TookTooLong(BaseException):
    pass


def on_alarm(*_):
    raise TookTooLong()


def theirs(compiler, template, variables):
    """The text, or ("raised" or "error", message); None: took too long."""
    signal.setitimer(signal.ITIMER_REAL, CASE_SECONDS)
    try:
        return compiler(template).render(**{"tools": None, "documents": None, "add_generation_prompt": False, **variables})
    except TookTooLong:
        return None
    except Exception as error:  # noqa: BLE001: any exception is an answer
        return ("raised" if type(error) is jinja2.exceptions.TemplateError else "error", str(error))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


CALLER_LETTERS = set("".join(CALLER)) - set("".join(CALLER)).intersection("‍")
CALLER_LETTERS |= {c for letter in CALLER_LETTERS for c in letter.upper() + letter.lower()}
LITERAL_LETTERS = {c for word in LITERAL for letter in word for c in letter.upper() + letter.lower()} | {"ς"}


def trust_difference(answer):
    data = answer["text"].encode()
    for begin, end, trusted in answer["runs"]:
        wrong = (CALLER_LETTERS if trusted else LITERAL_LETTERS) & set(data[begin:end].decode())
        if wrong:
            return f"{data[begin:end].decode()!r} is {'' if trusted else 'not '}trusted"
    return None


def difference(answer, other):
    """None if equal."""
    if "error" in answer:
        if isinstance(other, str):
            return f"ours fails: {answer['error']}"
        if other[0] == "raised" and other[1] != answer["error"]:
            return f"raised: {answer['error']!r}"
        return None
    if answer["text"] != other:
        return "the text differs" if isinstance(other, str) else "ours does not fail"
    return trust_difference(answer)


def run_chunk(job):
    seed, begin, end, options = job
    signal.signal(signal.SIGALRM, on_alarm)
    warnings.simplefilter("ignore", SyntaxWarning)  # Python's, of what Jinja2 compiles to
    compiler = make_compiler(options.transformers)
    cases = []
    for index in range(begin, end):
        grammar = Grammar(f"{seed}/{index}")
        variables = grammar.variables()
        cases.append((index, grammar.template(), variables))
    lines = "".join(json.dumps({"template": t, "variables": v}) + "\n" for _, t, v in cases)
    done = subprocess.run([options.lines], input=lines, capture_output=True, text=True, timeout=600, check=True)
    counts, found = collections.Counter(), []
    for (index, template, variables), line in zip(cases, done.stdout.split("\n")[:-1], strict=True):
        answer = json.loads(line)
        other = theirs(compiler, template, variables)
        if other is None:
            counts["too slow for Jinja2"] += 1
            continue
        counts["rendered" if isinstance(other, str) else "raised" if other[0] == "raised" else "failed"] += 1
        what = difference(answer, other)
        if what is None:
            continue
        ours = answer.get("text", answer.get("error"))
        reason = next((reason for reason, holds in STATED.items() if holds(answer, other, template)), None)
        if reason is not None:
            counts["stated: " + reason] += 1
        else:
            found.append({"case": f"{seed}/{index}", "what": what, "template": template, "variables": variables, "ours": ours, "theirs": other})
    return counts, found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", required=True)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--transformers", action="store_true")
    parser.add_argument("--show", type=int, default=10)
    parser.add_argument("--save", help="write every difference to this file")
    options = parser.parse_args()
    size = 250
    jobs = [(options.seed, begin, min(begin + size, options.cases), options) for begin in range(0, options.cases, size)]
    counts, found = collections.Counter(), []
    with multiprocessing.Pool(options.processes) as pool:
        for some_counts, some_found in pool.imap(run_chunk, jobs):
            counts += some_counts
            found += some_found
    for one in found[:options.show]:
        print(json.dumps(one, ensure_ascii=False, indent=1))
    if options.save:
        with open(options.save, "w", encoding="utf-8") as file:
            json.dump(found, file, ensure_ascii=False, indent=1)
    print(f"jinja2 {jinja2.__version__}, seed {options.seed}, {options.cases} cases:", dict(sorted(counts.items())), len(found), "differences")
    # Templates that all fail would compare nothing.
    if counts["rendered"] < options.cases / 3:
        sys.exit("too few templates rendered")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
