//! A flame graph that any browser shows: wide is costly, what is above was called by what is below.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::stacks::Profile;

/// A function, under those that called it.
#[derive(Default)]
struct Node {
    value: i64,
    callees: BTreeMap<String, Self>,
}

const WIDTH: f64 = 1200.0;
const ROW: usize = 16;
/// What is narrower cannot be seen, and would make the file huge.
const NARROWEST: f64 = 0.3;
/// An average letter of the font.
const LETTER: f64 = 6.6;

impl Profile {
    /// The profile as an SVG picture. Names and values show under the pointer. What shrank between two heap profiles is
    /// left out.
    pub fn flame_graph(&self, title: &str) -> String {
        let mut root = Node::default();
        for stack in self.stacks.iter().filter(|stack| stack.shown() > 0) {
            root.add(self.names(stack), stack.shown());
        }
        let rows = root.depth() + 1;
        let height = (rows + 2) * ROW;
        let unit = self.shown_kind().unit;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"monospace\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fffdf8\"/>\n\
             <text x=\"6\" y=\"13\">{} ({} {unit})</text>\n",
            escape(title),
            root.value,
        );
        if root.value > 0 {
            root.draw(&mut svg, "all", 0.0, WIDTH / root.value as f64, height - ROW - 4, root.value, unit);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

impl Node {
    fn add(&mut self, names: Vec<String>, value: i64) {
        let mut node = self;
        node.value += value;
        for name in names {
            node = node.callees.entry(name).or_default();
            node.value += value;
        }
    }

    fn depth(&self) -> usize {
        self.callees.values().map(|callee| callee.depth() + 1).max().unwrap_or(0)
    }

    /// Draws the node at `x`, its callees one row higher.
    #[expect(clippy::too_many_arguments, reason = "one picture, drawn by one function")]
    fn draw(&self, svg: &mut String, name: &str, x: f64, scale: f64, y: usize, total: i64, unit: &str) {
        let width = self.value as f64 * scale;
        if width < NARROWEST {
            return;
        }
        let share = self.value as f64 * 100.0 / total as f64;
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<g><title>{0} {1} {unit} ({share:.1} %)</title><rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{2}\" \
             fill=\"{3}\" stroke=\"#fffdf8\"/>",
            escape(name),
            self.value,
            ROW - 1,
            color(name),
        );
        let room = (width / LETTER) as usize;
        if room > 2 {
            let shown: String = name.chars().take(room - 1).collect();
            let _ = write!(svg, "<text x=\"{:.1}\" y=\"{}\">{}</text>", x + 2.0, y + 12, escape(&shown));
        }
        svg.push_str("</g>\n");
        let mut at = x;
        for (name, callee) in &self.callees {
            callee.draw(svg, name, at, scale, y.saturating_sub(ROW), total, unit);
            at += callee.value as f64 * scale;
        }
    }
}

/// Warm, and the same for the same name.
fn color(name: &str) -> String {
    let hash = name.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    format!("hsl({},{}%,{}%)", 8 + hash % 42, 70 + hash / 42 % 25, 62 + hash / 1050 % 14)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::stacks::tests::example;

    #[test]
    fn a_flame_graph_names_each_function_once_where_it_is_called() {
        let svg = example().flame_graph("cpu <of> orders");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        for shown in [
            "cpu &lt;of&gt; orders (50 nanoseconds)",
            "<title>all 50 nanoseconds (100.0 %)</title><rect x=\"0.0\" y=\"92\" width=\"1200.0\"",
            "<title>work&lt;&amp;'a&gt; 30 nanoseconds (60.0 %)</title>",
            "<title>inlined 30 nanoseconds (60.0 %)</title><rect x=\"240.0\" y=\"28\" width=\"720.0\"",
            "<title>0x30 10 nanoseconds (20.0 %)</title>",
        ] {
            assert!(svg.contains(shown), "no {shown} in\n{svg}");
        }
    }
}
