//! All routes of the console, declared once: what each needs of its caller stands beside its path. The router is built from
//! this list, and so are the test of the access and the test that holds the API's description against it.

use axum::Router;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodRouter, get, post};

use crate::access::RouteNeed;
use crate::guard::{self, GuardedRoute};
use crate::{Console, api, assets, live, pages};

/// The kind of a route's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteKind {
    /// A page.
    Page,
    /// The HTML of a mail, which a page shows in a frame: nothing in it runs, and nothing is loaded.
    Mail,
    /// JSON.
    Api,
    /// A file that is part of the program.
    Asset,
}

/// The method of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteMethod {
    /// Reads.
    Get,
    /// Changes something.
    Post,
}

impl RouteMethod {
    /// Returns true if a request with this method is for the route.
    pub(crate) fn takes(self, method: &Method) -> bool {
        match self {
            Self::Get => method == Method::GET || method == Method::HEAD,
            Self::Post => method == Method::POST,
        }
    }
}

/// One route.
pub(crate) struct ConsoleRoute {
    pub(crate) method: RouteMethod,
    /// The path below the base path.
    pub(crate) path: &'static str,
    pub(crate) need: RouteNeed,
    pub(crate) kind: RouteKind,
    handler: MethodRouter<Console>,
}

/// Declares the routes: method, path, need, kind and handler of each.
macro_rules! routes {
    ($($method:ident $path:literal $need:ident $kind:ident => $handler:path;)+) => {
        /// Returns all routes.
        pub(crate) fn all() -> Vec<ConsoleRoute> {
            vec![$(routes!(@one $method $path $need $kind $handler)),+]
        }
    };
    (@one GET $path:literal $need:ident $kind:ident $handler:path) => {
        ConsoleRoute {
            method: RouteMethod::Get, path: $path, need: RouteNeed::$need, kind: RouteKind::$kind, handler: get($handler),
        }
    };
    (@one POST $path:literal $need:ident $kind:ident $handler:path) => {
        ConsoleRoute {
            method: RouteMethod::Post, path: $path, need: RouteNeed::$need, kind: RouteKind::$kind, handler: post($handler),
        }
    };
}

routes! {
    GET  "/"                          Read    Page  => pages::overview::page;
    GET  "/events"                    Read    Page  => pages::events::page;
    GET  "/event"                     Read    Page  => pages::event::page;
    POST "/event/show"                Operate Page  => pages::event::show;
    GET  "/person"                    Read    Page  => pages::person::page;
    POST "/person/show"               Operate Page  => pages::person::show;
    GET  "/dead"                      Read    Page  => pages::dead::page;
    GET  "/dead/redrive"              Read    Page  => pages::redrive::plan;
    POST "/dead/redrive"              Operate Page  => pages::redrive::run;
    GET  "/redrives"                  Read    Page  => pages::redrive::list;
    GET  "/redrive"                   Read    Page  => pages::redrive::page;
    POST "/redrive/stop"              Operate Page  => pages::redrive::stop;
    GET  "/flows"                     Read    Page  => pages::flows::page;
    GET  "/flow"                      Read    Page  => pages::flow::page;
    GET  "/flow/mail"                 Read    Mail  => pages::flow::mail;
    POST "/flow/pause"                Operate Page  => pages::flow::pause;
    POST "/flow/resume"               Operate Page  => pages::flow::resume;
    POST "/run/cancel"                Operate Page  => pages::run::cancel;
    POST "/run/wake"                  Operate Page  => pages::run::wake;
    POST "/run/rerun"                 Operate Page  => pages::run::rerun;
    GET  "/lab"                       Read    Page  => pages::lab::page;
    GET  "/lab/mail"                  Operate Mail  => pages::lab::mail;
    POST "/lab/fault"                 Operate Page  => pages::lab::fault;
    GET  "/search"                    Read    Page  => pages::search::find;
    GET  "/live"                      Read    Api   => live::stream;
    GET  "/login"                     Public  Page  => pages::login::page;
    POST "/login"                     Public  Page  => pages::login::enter;
    POST "/logout"                    Public  Page  => pages::login::leave;
    GET  "/assets/style.css"          Public  Asset => assets::style;
    GET  "/assets/icon.svg"           Public  Asset => assets::icon;
    GET  "/assets/console.js"         Public  Asset => assets::script;
    GET  "/api/v1/openapi.json"       Read    Api   => api::description;
    GET  "/api/v1/overview"           Read    Api   => api::overview;
    GET  "/api/v1/events"             Read    Api   => api::events;
    GET  "/api/v1/event"              Read    Api   => api::event;
    POST "/api/v1/event/show"         Operate Api   => api::show_event;
    GET  "/api/v1/person"             Read    Api   => api::person;
    POST "/api/v1/person/show"        Operate Api   => api::show_person;
    GET  "/api/v1/dead-letters"       Read    Api   => api::dead_letters;
    GET  "/api/v1/dead-letters/causes" Read   Api   => api::causes;
    GET  "/api/v1/dead-letters/redrive" Read  Api   => api::plan_redrive;
    POST "/api/v1/dead-letters/redrive" Operate Api => api::redrive;
    GET  "/api/v1/redrives"           Read    Api   => api::redrives;
    GET  "/api/v1/redrive"            Read    Api   => api::one_redrive;
    POST "/api/v1/redrive/stop"       Operate Api   => api::stop_redrive;
    GET  "/api/v1/flow"               Read    Api   => api::flow;
    POST "/api/v1/flow/pause"         Operate Api   => api::pause;
    POST "/api/v1/flow/resume"        Operate Api   => api::resume;
    POST "/api/v1/run/cancel"         Operate Api   => api::cancel;
    POST "/api/v1/run/wake"           Operate Api   => api::wake;
    POST "/api/v1/run/rerun"          Operate Api   => api::rerun;
}

/// Returns the router of all routes, each behind the guard, below the base path.
pub(crate) fn router(console: Console) -> Router {
    let mut routes = Router::new();
    for ConsoleRoute { method, path, need, kind, handler } in all() {
        let guarded = GuardedRoute { console: console.clone(), method, need, kind };
        routes = routes.route(
            &format!("{}{path}", console.base()),
            handler.layer(middleware::from_fn_with_state(guarded, guard::admit)),
        );
    }
    if !console.base().is_empty() {
        let start = format!("{}/", console.base());
        routes = routes.route(console.base(), get(async move || axum::response::Redirect::permanent(&start)));
    }
    routes.fallback(pages::not_found).with_state(console)
}
