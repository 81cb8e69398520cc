//! A span of days.

use axum::extract::FromRequestParts;
use http::request::Parts;
use jiff::civil::{Date, DateTime, Time};

use crate::{Problem, Query, parse};

/// The days from `start` to `end`, both included.
///
/// As an extractor it reads the query parameters `startDate` and `endDate`, each `YYYY-MM-DD`, and rejects
/// with a 400 [`Problem`] that names the parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateRange {
    start: Date,
    end: Date,
}

impl DateRange {
    /// A range of days; `None` when it would end before it starts.
    pub fn new(start: Date, end: Date) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// The first day.
    pub fn start(self) -> Date {
        self.start
    }

    /// The last day, which belongs to the range.
    pub fn end(self) -> Date {
        self.end
    }

    /// The range as instants on a wall clock: from the first midnight, included, to the midnight after the
    /// last day, excluded. `None` when that midnight is beyond the calendar (the year 9999).
    pub fn full_days(self) -> Option<(DateTime, DateTime)> {
        let after = self.end.tomorrow().ok()?;
        Some((self.start.to_datetime(Time::midnight()), after.to_datetime(Time::midnight())))
    }

    /// Whether `day` is in the range.
    pub fn contains(self, day: Date) -> bool {
        self.start <= day && day <= self.end
    }
}

impl<S: Send + Sync> FromRequestParts<S> for DateRange {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Parameters {
            start_date: String,
            end_date: String,
        }
        let Query(Parameters { start_date, end_date }) = Query::try_from_uri(&parts.uri)?;
        let day = |name: &str, text: &str| parse::iso_date(text).map_err(|error| wrong(name, &error.to_string()));
        Self::new(day("startDate", &start_date)?, day("endDate", &end_date)?)
            .ok_or_else(|| wrong("endDate", "is before `startDate`"))
    }
}

fn wrong(parameter: &str, what: &str) -> Problem {
    Problem::bad_request(format!("`{parameter}`: {what}")).with("field", parameter)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    async fn range(query: &str) -> Result<DateRange, Problem> {
        let (mut parts, ()) = Request::get(format!("/?{query}")).body(()).unwrap().into_parts();
        DateRange::from_request_parts(&mut parts, &()).await
    }

    #[tokio::test]
    async fn both_ends_belong_to_the_range() {
        let range = range("startDate=2024-02-28&endDate=2024-02-29").await.unwrap();
        assert!(range.contains(range.start()) && range.contains(range.end()));
        let (from, to) = range.full_days().unwrap();
        assert_eq!((from.to_string(), to.to_string()), ("2024-02-28T00:00:00".into(), "2024-03-01T00:00:00".into()));
    }

    #[tokio::test]
    async fn one_day_is_a_range() {
        assert!(range("startDate=2024-02-28&endDate=2024-02-28").await.is_ok());
    }

    #[tokio::test]
    async fn a_wrong_range_is_400_and_names_the_parameter() {
        for (query, field) in [
            ("endDate=2024-02-29", "startDate"),
            ("startDate=2024-02-29", "endDate"),
            ("startDate=soon&endDate=2024-02-29", "startDate"),
            ("startDate=2024-02-29&endDate=2023-02-29", "endDate"),
            ("startDate=2024-02-29&endDate=2024-02-28", "endDate"),
        ] {
            let problem = range(query).await.unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.member("field").unwrap().as_str()), (400, Some(field)));
        }
    }

    #[tokio::test]
    async fn the_end_of_the_calendar_is_no_panic() {
        assert_eq!(range("startDate=9999-12-31&endDate=9999-12-31").await.unwrap().full_days(), None);
    }
}
