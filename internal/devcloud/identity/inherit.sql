-- roles that a project's or domain's user or group has in all projects below it
CREATE TABLE inherited (
    role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    group_id TEXT REFERENCES groups (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE
) STRICT;
CREATE UNIQUE INDEX inherited_once ON inherited (ifnull(user_id, ''), ifnull(group_id, ''), project_id, role_id);
CREATE INDEX inherited_users ON inherited (user_id);
CREATE INDEX inherited_groups ON inherited (group_id);
CREATE INDEX inherited_projects ON inherited (project_id);
CREATE INDEX inherited_roles ON inherited (role_id);
-- what holds where: as assigned, and as inherited from the project or domain "source"
CREATE VIEW holding AS
    SELECT user_id, group_id, project_id, role_id, NULL AS source FROM grants
    UNION ALL
    SELECT user_id, group_id, project_id, role_id, source FROM (
        WITH RECURSIVE down (user_id, group_id, project_id, role_id, source) AS (
            SELECT i.user_id, i.group_id, p.id, i.role_id, i.project_id FROM inherited i JOIN projects p ON p.parent_id = i.project_id
            UNION SELECT d.user_id, d.group_id, p.id, d.role_id, d.source FROM down d JOIN projects p ON p.parent_id = d.project_id)
        SELECT * FROM down);
