//! Circles of a graph, and a small set of edges that opens them.

use std::collections::{BTreeMap, BTreeSet};

/// The weights of edges between nodes.
pub(crate) type Graph<'a> = BTreeMap<(&'a str, &'a str), usize>;

/// Nodes that all lead to one another, and a small set of edges without which they do not.
pub(crate) struct Circle<'a> {
    pub(crate) nodes: BTreeSet<&'a str>,
    pub(crate) cuts: BTreeSet<(&'a str, &'a str)>,
}

/// Returns the strongly connected components of more than one node.
pub(crate) fn circles<'a>(graph: &Graph<'a>) -> Vec<Circle<'a>> {
    let mut next = BTreeMap::<&str, Vec<&str>>::new();
    for (from, to) in graph.keys() {
        next.entry(from).or_default().push(to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = next
        .keys()
        .map(|node| (*node, reach(node, &next)))
        .collect();
    let mut circles = Vec::<Circle<'_>>::new();
    for (node, others) in &reached {
        if !others.contains(node) || circles.iter().any(|circle| circle.nodes.contains(node)) {
            continue;
        }
        let leads_back = |other: &&str| reached.get(other).is_some_and(|set| set.contains(node));
        let nodes: BTreeSet<&str> = others.iter().copied().filter(leads_back).collect();
        let cuts = cuts(graph, &nodes);
        circles.push(Circle { nodes, cuts });
    }
    circles
}

fn reach<'a>(start: &str, next: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(node) = open.pop() {
        for to in next.get(node).into_iter().flatten() {
            if reached.insert(*to) {
                open.push(to);
            }
        }
    }
    reached
}

/// Puts the nodes in an order with few edges backwards, and returns these.
///
/// It moves one node at a time to its best position until no move helps. That is not always the
/// least weight, but close to it.
fn cuts<'a>(graph: &Graph<'a>, nodes: &BTreeSet<&'a str>) -> BTreeSet<(&'a str, &'a str)> {
    let weight = |from: &str, to: &str| graph.get(&(from, to)).copied().unwrap_or(0);
    let mut order: Vec<&str> = nodes.iter().copied().collect();
    // Nodes that import more than they are imported come first.
    order.sort_by_key(|node| {
        let surplus: usize = nodes.iter().map(|other| weight(node, other)).sum();
        let deficit: usize = nodes.iter().map(|other| weight(other, node)).sum();
        deficit as isize - surplus as isize
    });
    let mut moved = true;
    while moved {
        moved = false;
        for node in nodes {
            let from = order
                .iter()
                .position(|other| other == node)
                .expect("it is in the order");
            order.remove(from);
            // The weight of the backward edges of `node` at each position.
            let mut cost: usize = order.iter().map(|later| weight(later, node)).sum();
            let mut costs = vec![cost];
            for other in &order {
                cost = cost + weight(node, other) - weight(other, node);
                costs.push(cost);
            }
            let best = (0..costs.len())
                .min_by_key(|at| costs[*at])
                .expect("there is a position");
            let to = if costs[best] < costs[from] {
                best
            } else {
                from
            };
            moved |= to != from;
            order.insert(to, node);
        }
    }
    let position = |node: &str| order.iter().position(|other| *other == node);
    graph
        .keys()
        .filter(|(from, to)| nodes.contains(from) && nodes.contains(to))
        .filter(|(from, to)| position(from) > position(to))
        .copied()
        .collect()
}
