#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints each cycle of includes between the files of a tree.

    scripts/include_cycles.py TREE FOLDER...

A module is a header and the source beside it of the same name. Of two that
include each other, through whatever others, neither can be understood or tested
without the other. Ends with 0 if there is no cycle.
"""

import pathlib
import re
import sys

INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')


def read_graph(tree, folders):
    """From each module, by its path without a suffix, to those it includes."""
    graph = {}
    for folder in folders:
        for path in sorted((tree / folder).rglob("*.[ch]")):
            module = str(path.relative_to(tree).with_suffix(""))
            seen = graph.setdefault(module, set())
            for line in path.read_text(errors="replace").splitlines():
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match[1] if "/" in match[1] else \
                    f"{path.parent.relative_to(tree)}/{match[1]}"
                target = str(pathlib.PurePosixPath(target).with_suffix(""))
                if target != module:
                    seen.add(target)
    return graph


def find_components(graph):
    """Tarjan's strongly connected components of more than one module."""
    numbers, low, stack, on_stack, found = {}, {}, [], set(), []

    def visit(root):
        work = [(root, iter(sorted(graph.get(root, ()))))]
        numbers[root] = low[root] = len(numbers)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in numbers:
                    numbers[target] = low[target] = len(numbers)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(sorted(graph.get(target, ())))))
                    break
                if target in on_stack:
                    low[node] = min(low[node], numbers[target])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == numbers[node]:
                    component = []
                    while True:
                        component.append(stack.pop())
                        on_stack.discard(component[-1])
                        if component[-1] == node:
                            break
                    if len(component) > 1:
                        found.append(sorted(component))

    for node in sorted(graph):
        if node not in numbers:
            visit(node)
    return found


def main():
    tree = pathlib.Path(sys.argv[1])
    cycles = find_components(read_graph(tree, sys.argv[2:]))
    for cycle in cycles:
        for module in cycle:
            for path in sorted(tree.glob(f"{module}.[ch]")):
                print(f"{path.relative_to(tree)}: a cycle of includes: "
                      f"{' '.join(cycle)}")
    return 1 if cycles else 0


if __name__ == "__main__":
    sys.exit(main())
