//! What a process finds after a restart, clean or by a crash.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Stdio,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody, channel::Channel};
use serde::{Deserialize, Serialize};
use tower::{Service, util::BoxCloneSyncService};
use tower_accepted::{RequestBody, store::sqlite::SqliteOptions};

use crate::{
    site::{
        Home, boxed, counting, end, hanging, keyed, large, options, outcome, quick, role,
        this_test, until, wait_for_end,
    },
    suites::routes::{Inner, Outer},
    support::{Answer, Body, Counter, Failed, get, ok, post, request, send, with},
};
