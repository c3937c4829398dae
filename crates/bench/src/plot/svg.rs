//! Bars and lines as SVG, legible on light and on dark.

use std::fmt::Write as _;

/// How something is marked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// What nobody gets below.
    Floor,
    Ours,
    Peer(usize),
}

impl Mark {
    fn class(self) -> String {
        match self {
            Self::Floor => "floor".to_owned(),
            Self::Ours => "ours".to_owned(),
            Self::Peer(number) => format!("peer{}", number % 4),
        }
    }
}

/// One bar: its name, what is said small beside it, its length, and what is written at its end.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) note: String,
    pub(super) value: f64,
    pub(super) shown: String,
    pub(super) mark: Mark,
}

/// One line through points, none where there is no value.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) values: Vec<Option<f64>>,
    pub(super) mark: Mark,
}

/// The drawing.
pub(super) struct Drawing {
    text: String,
    width: f64,
}

/// Where a panel lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
}

/// Both palettes have a contrast of at least 4.5 to 1 in all that is text.
const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#1f2328}
.paper{fill:#ffffff;stroke:#d1d9e0}.title{font-size:14px;font-weight:600}.small{font-size:11px;fill:#59636e}
.strong{font-weight:600}.grid{stroke:#d1d9e0;stroke-width:1}
.floor{fill:#818b98;stroke:#818b98}.ours{fill:#0969da;stroke:#0969da}.peer0{fill:#bc4c00;stroke:#bc4c00}
.peer1{fill:#8250df;stroke:#8250df}.peer2{fill:#1a7f37;stroke:#1a7f37}.peer3{fill:#9a6700;stroke:#9a6700}
polyline.line{fill:none;stroke-width:2}polyline.line.ours{stroke-width:3.5}polyline.line.floor{stroke-dasharray:5 4}
rect.floor,rect.ours,rect.bar{stroke:none}rect.bar.peer0{fill:#c8ced5}text.mark{stroke:none}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117;stroke:#3d444d}.small{fill:#9198a1}
.grid{stroke:#2f363d}.floor{fill:#9198a1;stroke:#9198a1}.ours{fill:#58a6ff;stroke:#58a6ff}
.peer0{fill:#f0883e;stroke:#f0883e}.peer1{fill:#bc8cff;stroke:#bc8cff}.peer2{fill:#3fb950;stroke:#3fb950}
.peer3{fill:#d29922;stroke:#d29922}rect.bar.peer0{fill:#484f58}}
";

const ROW: f64 = 19.0;
const HEAD: f64 = 44.0;

impl Drawing {
    pub(super) fn new(width: f64) -> Self {
        Self { text: String::new(), width }
    }

    /// Horizontal bars below each other, as long as their values; gives the panel's lower end.
    pub(super) fn bars(&mut self, area: Area, title: &str, under: &str, bars: &[Bar]) -> f64 {
        self.title(area, title, under);
        // Fonts differ; this is what wide ones take.
        let wide = |text: &str| 6.7 * f64::from(u16::try_from(text.chars().count()).unwrap_or(u16::MAX));
        let names = bars.iter().map(|bar| wide(&bar.name)).fold(100.0, f64::max).min(area.width * 0.62) + 8.0;
        let room = |bar: &Bar| (area.width - names - 8.0 - wide(&bar.shown)).max(20.0);
        // The longest that all can be without their figures leaving the panel.
        let scale = bars.iter().map(|bar| room(bar) / bar.value).fold(f64::MAX, f64::min);
        let length = |value: f64| (value * scale).max(1.0);
        let zero = area.left + names;
        let mut y = area.top + HEAD;
        for bar in bars {
            let strong = if bar.mark == Mark::Ours { " strong" } else { "" };
            let middle = y + 12.5;
            self.put(format_args!(
                "<text class=\"{strong}\" x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
                zero - 6.0,
                escaped(&bar.name)
            ));
            self.put(format_args!(
                "<rect class=\"bar {}\" x=\"{zero:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"13\" rx=\"2\"><title>{}</title></rect>",
                bar.mark.class(),
                y + 2.0,
                length(bar.value),
                escaped(&bar.note)
            ));
            let end = zero + length(bar.value) + 5.0;
            self.put(format_args!(
                "<text class=\"{strong}\" x=\"{end:.1}\" y=\"{middle:.1}\">{}</text>",
                escaped(&bar.shown)
            ));
            y += ROW;
        }
        y
    }

    /// Lines over named places, on a logarithmic scale; gives the panel's lower end.
    pub(super) fn lines(
        &mut self,
        area: Area,
        title: &str,
        under: &str,
        places: &[String],
        shown: fn(f64) -> String,
        lines: &[Line],
    ) -> f64 {
        self.title(area, title, under);
        let values = || lines.iter().flat_map(|line| line.values.iter().flatten().copied());
        let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        let (low, high) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()));
        let (height, left, right) = (190.0, area.left + 52.0, area.left + area.width - 132.0);
        let bottom = area.top + HEAD + 4.0 + height;
        let y_of = |value: f64| bottom - (value / low).ln() / (high / low).ln() * height;
        let steps = places.len().saturating_sub(1).max(1);
        #[allow(clippy::cast_precision_loss, reason = "there are a handful")]
        let x_of = |place: usize| left + (right - left) * place as f64 / steps as f64;
        let mut decade = low;
        while decade <= high * 1.01 {
            let y = y_of(decade);
            self.put(format_args!(
                "<line class=\"grid\" x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                y + 4.0,
                shown(decade)
            ));
            decade *= 10.0;
        }
        for (place, name) in places.iter().enumerate() {
            self.put(format_args!(
                "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x_of(place),
                bottom + 17.0,
                escaped(name)
            ));
        }
        let mut labels: Vec<(f64, &Line, f64)> = Vec::new();
        for line in lines {
            let points: Vec<(f64, f64)> = line
                .values
                .iter()
                .enumerate()
                .filter_map(|(place, value)| Some((x_of(place), y_of((*value)?))))
                .collect();
            let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let class = line.mark.class();
            self.put(format_args!("<polyline class=\"line {class}\" points=\"{}\"/>", path.join(" ")));
            for (x, y) in &points {
                self.put(format_args!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>"));
            }
            if let (Some((_, y)), Some(last)) = (points.last(), line.values.iter().flatten().next_back()) {
                labels.push((*y, line, *last));
            }
        }
        self.labels(labels, right + 8.0, shown);
        bottom + 24.0
    }

    /// The lines' names at their ends, apart from each other.
    fn labels(&mut self, mut labels: Vec<(f64, &Line, f64)>, x: f64, shown: fn(f64) -> String) {
        labels.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut free = f64::MIN;
        // From below they are pushed up again where the lowest would leave the panel.
        let mut places: Vec<f64> = Vec::new();
        for (y, ..) in &labels {
            let place = y.max(free);
            places.push(place);
            free = place + 14.0;
        }
        if let (Some(last), Some((wanted, ..))) = (places.last(), labels.last()) {
            let mut ceiling = wanted.max(last - 14.0).min(*last);
            for place in places.iter_mut().rev() {
                *place = place.min(ceiling);
                ceiling = *place - 14.0;
            }
        }
        for ((_, line, last), y) in labels.into_iter().zip(places) {
            let strong = if line.mark == Mark::Ours { " strong" } else { "" };
            self.put(format_args!(
                "<text class=\"mark {}{strong}\" x=\"{x:.1}\" y=\"{:.1}\">{} {}</text>",
                line.mark.class(),
                y + 4.0,
                escaped(&line.name),
                shown(last)
            ));
        }
    }

    fn title(&mut self, area: Area, title: &str, under: &str) {
        self.put(format_args!(
            "<text class=\"title\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            area.left,
            area.top + 14.0,
            escaped(title)
        ));
        self.small(area.left, area.top + 31.0, under);
    }

    /// A line of small text.
    pub(super) fn small(&mut self, x: f64, y: f64, text: &str) {
        self.put(format_args!("<text class=\"small\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(text)));
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{element}");
    }

    /// The whole file.
    pub(super) fn finish(self, height: f64, description: &str) -> String {
        let Self { text, width } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{}\">\n<style>\n{STYLE}</style>\n\
             <rect class=\"paper\" x=\"0.5\" y=\"0.5\" width=\"{:.0}\" height=\"{:.0}\" rx=\"8\"/>\n{text}</svg>\n",
            escaped(description),
            width - 1.0,
            height - 1.0
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
